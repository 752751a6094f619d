"""`make bench-recording`: what recording experience costs: our server with and without it, in interleaved rounds.

Each request names an episode and its step, as a client that reports rewards does.
"""

import contextlib
import signal
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import click

from benchmarks.contender import Contender
from benchmarks.load import Load, load
from benchmarks.recipes import OURS, ours
from benchmarks.registry import registered

RECORDING = "ours, recording"
EPISODE = {"X-Episode-Id": "0123456789abcdef0123456789abcdef", "X-Episode-Step": "17", "X-Episode-Reward": "1.0"}
CONNECTIONS = (1, 16)
SETTLE_S = 1.0


@click.command()
@click.option("--rounds", default=7, show_default=True, help="How often each is measured.")
@click.option("--seconds", default=4, show_default=True, help="How long, each time.")
def main(rounds: int, seconds: int) -> None:
    """Measure both servers and print a table: medians of the rounds, and the median of the ratio within each round."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory() as directory, registered(Path(directory)) as version:
        recording = ("--experience-uri", f"{directory}/experience", "--cache-dir", f"{directory}/cache")
        with contextlib.ExitStack() as running:
            contenders = {
                name: running.enter_context(Contender(ours(name, version, *options)))
                for name, options in ((OURS, ()), (RECORDING, recording))
            }
            for each in contenders.values():
                running.callback(each.thaw)
                each.freeze()
            measured = _measure(contenders, rounds, seconds)
    _print(measured)


def _measure(contenders: dict[str, Contender], rounds: int, seconds: int) -> dict[str, dict[int, list[Load]]]:
    measured: dict[str, dict[int, list[Load]]] = defaultdict(lambda: defaultdict(list))
    for number in range(rounds):
        click.echo(f"round {number + 1} of {rounds} ...", err=True)
        # The order alternates, so that neither always follows the other.
        for name, contender in sorted(contenders.items(), reverse=bool(number % 2)):
            contender.thaw()
            load(contender.recipe.url, contender.recipe.body, 4, SETTLE_S)
            for connections in CONNECTIONS:
                one = load(contender.recipe.url, contender.recipe.body, connections, seconds, headers=EPISODE)
                measured[name][connections].append(one)
            contender.freeze()
    return measured


def _print(measured: dict[str, dict[int, list[Load]]]) -> None:
    click.echo("| connections | figure | without | recording | ratio |\n| --- | --- | --- | --- | --- |")
    for connections in CONNECTIONS:
        for figure in ("requests_per_s", "p50_ms", "p99_ms"):
            without, recording = (
                [getattr(each, figure) for each in measured[name][connections]] for name in (OURS, RECORDING)
            )
            ratio = statistics.median(after / before for before, after in zip(without, recording, strict=True))
            cells = f"{statistics.median(without):,.2f} | {statistics.median(recording):,.2f} | {ratio:.3f}"
            click.echo(f"| {connections} | {figure} | {cells} |")
    failed = sum(each.failed for by in measured.values() for loads in by.values() for each in loads)
    click.echo(f"{failed} requests failed")


if __name__ == "__main__":
    main()
