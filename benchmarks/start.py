"""`make bench-start`: cold start of our server beside the no-op Serve's, and the seconds of each registry command."""

import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks.contender import Contender, Recipe
from benchmarks.recipes import NOOP, OURS, recipes
from benchmarks.registry import Registered, registered
from tests.workshop import Workshop

NAME = "cartpole-ppo"
COMMANDS = {
    "pipeline --help": ("pipeline", "--help"),
    "serving --help": ("serving", "--help"),
    "versions": ("pipeline", "versions", "--name", NAME),
    "history": ("pipeline", "history", "--name", NAME),
    "promote --alias --force": ("pipeline", "promote", "1", "--alias", "bench-start", "--force", "--name", NAME),
    "promote --stage Staging": ("pipeline", "promote", "1", "--stage", "Staging", "--name", NAME),
    "rollback": ("pipeline", "rollback", "--name", NAME),
    "evaluate of a missing version": ("pipeline", "evaluate", f"models:/{NAME}/1000000"),
    "run of a missing version": ("serving", "run", "--model-uri", f"models:/{NAME}/1000000"),
}
SERVER_COMMANDS = {
    "status": ("serving", "status", "--url"),
    "query --episodes 1": ("serving", "query", "--quiet", "--episodes", "1", "--url"),
}


@click.command()
@click.option("--rounds", default=3, show_default=True, help="How often each is measured; the median counts.")
def main(rounds: int) -> None:
    """Measure in interleaved rounds, each alone on the machine, and print medians in seconds."""
    seconds: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as directory, registered(Path(directory)) as version:
        starts = [each for each in recipes(version) if each.name in (OURS, NOOP)]
        for number in range(rounds):
            click.echo(f"round {number + 1} of {rounds} ...", err=True)
            for name, spent in _round(version, starts, Path(directory), first=number == 0):
                seconds[name].append(spent)
    for name, each in seconds.items():
        click.echo(f"{statistics.median(each):6.2f} s   {min(each):6.2f} to {max(each):.2f}   {name}")


def _round(version: Registered, starts: list[Recipe], directory: Path, *, first: bool) -> Iterator[tuple[str, float]]:
    shop = Workshop(directory, {"MLFLOW_TRACKING_URI": version.tracking_uri})
    if first:  # compiles the modules
        for command in COMMANDS.values():
            _seconds(shop, *command)
    for recipe in starts:
        with Contender(recipe) as contender:
            yield f"cold start: {recipe.name}", contender.cold_start_s
            if recipe.name == OURS:
                url = recipe.url
                for name, command in SERVER_COMMANDS.items():
                    yield name, _seconds(shop, *command, url)
    for name, command in COMMANDS.items():
        yield name, _seconds(shop, *command)


def _seconds(shop: Workshop, *command: str) -> float:
    start = time.perf_counter()
    done = shop.python(*command)
    spent = time.perf_counter() - start
    # An expected error ends with status 1, and costs the same imports.
    if done.returncode not in (0, 1) or "Traceback" in done.stderr:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return spent


if __name__ == "__main__":
    main()
