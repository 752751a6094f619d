"""The commands of `python -m pipeline`: each one reads its options, makes one call, and prints the result."""
