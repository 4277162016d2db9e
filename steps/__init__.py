"""Build steps: one module per verb, from a checkout to published packages."""
