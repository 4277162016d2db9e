"""The package server: the published tree over HTTP, and the uploads that builds send."""
