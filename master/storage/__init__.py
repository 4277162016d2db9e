"""What the database holds, and for how long."""
