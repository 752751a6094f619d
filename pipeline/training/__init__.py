"""One training run from start to registered version: the loop, its state, warm starts and progress."""
