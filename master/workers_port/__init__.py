"""The port that workers connect to, and what is read there before a login."""
