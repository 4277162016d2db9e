"""Limits of what `make reload` changes in a running master, and the log that it waits for."""
