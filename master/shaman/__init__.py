"""The published tree as clients of shaman and chacra see it."""
