"""The product beside its peers, on this machine: `make bench-serving`."""
