"""Runs the command line: `python -m serving`."""

import sys

from serving.cli import main
from serving.errors import print_traceback

if __name__ == "__main__":
    sys.excepthook = print_traceback
    main(prog_name="python -m serving")
