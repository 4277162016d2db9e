"""Benchmarks: what the system costs beside what it is compared with; `python -m bench --help`."""
