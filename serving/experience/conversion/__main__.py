"""Runs a converter: `python -m serving.experience.conversion --journal DIR --uri URI --cache DIR`."""

import argparse
import gc
import logging
import sys
from pathlib import Path

from serving.errors import ServingError, print_traceback
from serving.experience.conversion.process import run
from serving.telemetry.logs import configure_replica


def parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    arguments = argparse.ArgumentParser(prog="python -m serving.experience.conversion", description=__doc__)
    arguments.add_argument("--journal", type=Path, required=True, help="The directory of the journal.")
    arguments.add_argument("--uri", required=True, help="The store: /PATH, file:///PATH or s3://BUCKET/PATH.")
    arguments.add_argument("--cache", type=Path, required=True, help="The directory of the bundle cache.")
    arguments.add_argument("--log-format", choices=("text", "json"), default="text", help="The format of the log.")
    arguments.add_argument(
        "--once", action="store_true", help="Convert what is complete, and end; with status 1 if not all could be."
    )
    arguments.add_argument("--parent", type=int, help="The number of the process with which this one ends.")
    return arguments


def main() -> int:
    """Run it until SIGTERM. Return its exit status: with `--once` 1 if segments are left."""
    arguments = parser().parse_args()
    configure_replica(arguments.log_format, dict)
    logging.getLogger("serving").setLevel(logging.INFO)
    try:
        is_done = run(arguments.journal, arguments.uri, arguments.cache, parent=arguments.parent, once=arguments.once)
    except ServingError as error:
        print(error, file=sys.stderr)  # noqa: T201 - for the person who started it
        return 1
    return 1 if arguments.once and not is_done else 0


if __name__ == "__main__":
    gc.set_threshold(100_000, 50, 100)  # as `python -m serving`
    sys.excepthook = print_traceback
    sys.exit(main())
