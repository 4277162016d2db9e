"""What `make demo`, the tests and the benchmark build when they don't build the real Ceph."""
