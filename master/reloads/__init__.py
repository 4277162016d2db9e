"""What `make reload` may change in a running master, and the log that it waits for."""
