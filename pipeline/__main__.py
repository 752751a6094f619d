"""`python -m pipeline`."""

import atexit
import gc

from pipeline.cli import cli

# Torch, RLlib and MLflow make 700,000 objects that stay. By Python's defaults, looking among them for garbage takes a
# third of the time of their imports, and 2 s at the end.
gc.set_threshold(100_000, 50, 100)
atexit.register(gc.freeze)

if __name__ == "__main__":
    cli(prog_name="python -m pipeline")
