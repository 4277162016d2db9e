"""The lab: a real small OpenStack on this machine, for tests, benchmarks and a look around."""
