"""Tasks of the suites here."""
