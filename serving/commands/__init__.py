"""The commands of `python -m serving`: run, deploy, delete, query and status."""
