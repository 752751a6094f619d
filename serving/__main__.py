"""Runs the command line: `python -m serving`."""

import atexit
import gc
import sys

from serving.cli import main
from serving.errors import print_traceback

# Ray creates many objects at import that live until the end. With Python's default thresholds, collecting garbage among
# them takes a tenth of the time of the imports.
gc.set_threshold(100_000, 50, 100)
atexit.register(gc.freeze)

if __name__ == "__main__":
    sys.excepthook = print_traceback
    main(prog_name="python -m serving")
