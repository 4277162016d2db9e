"""Latent workers: one machine made for one build, and gone after it."""
