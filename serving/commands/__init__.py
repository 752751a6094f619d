"""The commands of `python -m serving`: run, query and status."""
