"""The buildmaster: settings, schedulers, builders, and the package server."""
