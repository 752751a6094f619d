"""`python -m pipeline`."""

import atexit
import gc

from pipeline.cli import cli
from pipeline.garbage import collect_rarely

collect_rarely()
# A last look, as the program ends, would take 2 s.
atexit.register(gc.freeze)

if __name__ == "__main__":
    cli(prog_name="python -m pipeline")
