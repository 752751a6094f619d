"""`python -m pipeline`."""

import atexit
import gc
import sys

from pipeline.cli import cli
from serving.errors import print_traceback

# torch, RLlib and MLflow create 700,000 objects that live until the end. With Python's default thresholds, collecting
# garbage among them takes a third of the time of their imports, and the last collection, at exit, takes 2 s.
gc.set_threshold(100_000, 50, 100)
atexit.register(gc.freeze)

if __name__ == "__main__":
    sys.excepthook = print_traceback
    cli(prog_name="python -m pipeline")
