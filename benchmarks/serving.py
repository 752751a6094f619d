"""`make bench-serving`: our server beside its peers, in interleaved rounds on this machine."""

import contextlib
import signal
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks import report
from benchmarks.contender import Contender, Recipe
from benchmarks.load import Load, generator, load
from benchmarks.recipes import NOOP, OURS, many, recipes
from benchmarks.registry import registered
from benchmarks.targets import TARGETS, Results
from serving.processes import available_cpus

RESULTS = Path(__file__).with_name("results")
SETTLE_S = 1


@dataclass(frozen=True)
class Scope:
    """How much to measure."""

    rounds: int = 5
    seconds: int = 3
    cold_starts: int = 3
    batches: tuple[int, ...] = (1, 4, 16, 64, 256, 1024, 4096)
    connections: tuple[int, ...] = (1, 16, 64)


QUICK = Scope(rounds=1, seconds=2, cold_starts=1, batches=(1, 64, 1024))


@click.command()
@click.option("--quick", is_flag=True, help="One short round: the figures are rough.")
@click.option("--output", default=str(RESULTS), show_default=True, help="Where to write JSON, table and plot.")
@click.option("--strict", is_flag=True, help="Exit with status 1 unless every target is met.")
def main(output: str, *, quick: bool, strict: bool) -> None:
    """Measure every contender, print the table and write it."""
    # As Ctrl-C does, so that no contender is left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    results = measure(QUICK if quick else Scope())
    click.echo(report.table(results))
    report.write(results, Path(output))
    if strict and not all(target.met(results) for target in TARGETS):
        sys.exit(1)


def measure(scope: Scope) -> Results:
    """Return all figures: medians over the rounds."""
    with tempfile.TemporaryDirectory() as directory, registered(Path(directory)) as version:
        ordered = recipes(version)
        cold_starts = _cold_starts([each for each in ordered if each.name in (OURS, NOOP)], scope.cold_starts)
        with contextlib.ExitStack() as running:
            contenders = [_started(running, recipe) for recipe in ordered]
            # Only now: a Ray that was frozen for minutes takes its own parts for dead.
            for each in contenders:
                each.freeze()
            memory = {each.recipe.name: _memory(each) for each in contenders}
            rounds = _rounds(contenders, scope)
            batches = _batches(contenders[0], scope)
    for each in contenders:
        cold_starts.setdefault(each.recipe.name, each.cold_start_s)
    return {
        "machine": {"cpus": available_cpus(), "load_generator": generator(), "rounds": asdict(scope)},
        "load": rounds,
        "batch": batches,
        "cold_start_s": cold_starts,
        "memory": memory,
    }


def _cold_starts(some: Iterable[Recipe], times: int) -> dict[str, float]:
    """Return the median times from command to first answer, each alone on the machine, in turns."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(times):
        for recipe in some:
            with Contender(recipe) as contender:
                seconds[recipe.name].append(contender.cold_start_s)
            click.echo(f"cold start of {recipe.name}: {seconds[recipe.name][-1]:.1f} s", err=True)
    return {name: statistics.median(each) for name, each in seconds.items()}


def _started(running: contextlib.ExitStack, recipe: Recipe) -> Contender:
    click.echo(f"starting {recipe.name} ...", err=True)
    contender = running.enter_context(Contender(recipe))
    running.callback(contender.thaw)
    return contender


@contextlib.contextmanager
def _awake(contender: Contender) -> Any:
    """Let a contender run, warm again, and freeze it after."""
    contender.thaw()
    load(contender.recipe.url, contender.recipe.body, 4, SETTLE_S)
    if not contender.answers():
        raise RuntimeError(f"{contender.recipe.name} does not answer any more")
    yield
    contender.freeze()


def _memory(contender: Contender) -> dict[str, float]:
    with _awake(contender):
        load(contender.recipe.url, contender.recipe.body, 16, SETTLE_S)
        return contender.replica_memory()


def _rounds(contenders: list[Contender], scope: Scope) -> dict[str, dict[str, dict[str, float]]]:
    """Return medians by way to ask and number of connections. Each round asks everyone once in each way."""
    loads: dict[str, dict[str, list[Load]]] = {
        way.name: {str(connections): [] for connections in scope.connections}
        for each in contenders
        for way in each.recipe.all_ways
    }
    for number in range(scope.rounds):
        click.echo(f"round {number + 1} of {scope.rounds} ...", err=True)
        for contender in contenders:
            with _awake(contender):
                for connections in scope.connections:
                    for way in contender.recipe.all_ways:
                        one = load(way.url, way.body, connections, scope.seconds, way.json_length)
                        loads[way.name][str(connections)].append(one)
    return {name: {key: _median(each) for key, each in by.items()} for name, by in loads.items()}


def _median(loads: list[Load]) -> dict[str, float]:
    columns = {name: [asdict(each)[name] for each in loads] for name in asdict(loads[0])}
    return {name: max(column) if name == "failed" else statistics.median(column) for name, column in columns.items()}


def _batches(ours: Contender, scope: Scope) -> dict[str, float]:
    """Return observations/s by observations per request, at 16 connections."""
    rates: dict[str, float] = {}
    for batch in scope.batches:
        with _awake(ours):
            measured = load(ours.recipe.url, many(batch), 16, scope.seconds)
        rates[str(batch)] = batch * measured.requests_per_s
    return rates


if __name__ == "__main__":
    main()
