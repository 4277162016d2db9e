"""The database, and how long it keeps the text of logs."""
