"""`make bench-play`: what viewers of /play cost the clients of the same replica, in interleaved rounds."""

import contextlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks.contender import Contender
from benchmarks.load import Load, load
from benchmarks.recipes import ONE, OURS, ours
from benchmarks.registry import registered

VIEWERS = (0, 1, 2)
CONNECTIONS = (1, 16)
UNTIL_ACTING_S = 5


@click.command()
@click.option("--rounds", default=4, show_default=True, help="How often each is measured.")
@click.option("--seconds", default=4, show_default=True, help="How long, each time.")
def main(rounds: int, seconds: int) -> None:
    """Measure with no, one and two viewers and print a table: medians of the rounds."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    measured: dict[tuple[int, int], list[Load]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as directory, registered(Path(directory)) as version:
        recipe = ours(OURS, version)
        with Contender(recipe):
            for _ in range(rounds):
                for viewers in VIEWERS:
                    with _watching(recipe.url, viewers):
                        for connections in CONNECTIONS:
                            measured[viewers, connections].append(load(recipe.url, ONE, connections, seconds))
    click.echo("| viewers | connections | requests/s | p50, ms | p99, ms |\n| --- | --- | --- | --- | --- |")
    for (viewers, connections), loads in sorted(measured.items()):
        rate = statistics.median(each.requests_per_s for each in loads)
        p50 = statistics.median(each.p50_ms for each in loads)
        p99 = statistics.median(each.p99_ms for each in loads)
        click.echo(f"| {viewers} | {connections} | {rate:,.0f} | {p50:.2f} | {p99:.2f} |")


@contextlib.contextmanager
def _watching(url: str, viewers: int) -> Iterator[None]:
    command = ["curl", "--silent", "--no-buffer", f"{url}/play/events"]
    watching = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(viewers)]
    time.sleep(UNTIL_ACTING_S)
    try:
        yield
    finally:
        for each in watching:
            each.kill()
            each.wait()


if __name__ == "__main__":
    main()
