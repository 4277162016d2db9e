"""The session's lab."""

from tests.cloud import lab, tenant

__all__ = ["lab", "tenant"]
