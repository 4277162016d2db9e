"""Answers, clients and JSON-RPC calls over HTTP."""
