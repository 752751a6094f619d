"""`python -m serving query` plays episodes through HTTP and prints their returns."""

import shlex
import statistics
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeElapsedColumn
from rich.text import Text

from serving.client.token_file import read_token
from serving.commands.descriptions import Played, described, refused_modules
from serving.commands.episodes import Episode, MakeEnvironment, Step, TimedClient, play_in_lockstep, play_sequentially
from serving.commands.errors import ImportRefused
from serving.errors import one_line, redacted
from serving.policy import environments

PRINTED_STEPS = 3
LOCKSTEP_FROM = 20
"""From this many episodes on they are played in lockstep by default."""


def query(
    url: str,
    *,
    episodes: int,
    env_id: str | None,
    allow_import: bool = False,
    environment_modules: Sequence[str] = (),
    seed: int,
    quiet: bool,
    together: bool | None,
    token_file: str | None = None,
    explore: bool = False,
) -> list[Episode]:
    """Play episodes with the policy at `url`, and print their steps and returns, and a summary.

    The arguments are the options of the command; `quiet` leaves the summary and, on a terminal, a progress bar. What
    the server says chooses no code to run here but an environment of Gymnasium or of the `environment_modules`, unless
    `allow_import` is true.

    Raises:
        ServerUnreachable, RequestRefused: as `PolicyClient`.
        TokenFileInvalid: the file contains no token.
        ImportRefused: modules would be imported on the server's word.
        EnvironmentUnknown, EnvironmentNotMade, ObjectUnknown: the environment cannot be made.
    """
    with TimedClient(url, token=token_file and read_token(token_file)) as client:
        model = described(client, Played)
        environment: dict[str, Any] = {"id": env_id, "kwargs": {}} if env_id else model["environment"]
        _check_modules(environment, None if env_id or allow_import else environment_modules)
        make = _maker(environment)
        make().close()  # type: ignore[no-untyped-call]  # to raise EnvironmentUnknown before the first request
        seeds = range(seed, seed + episodes)
        played_by = f"{model['name']} version {model['version']}"
        click.echo(one_line(redacted(f"{played_by} plays {environment['id']} through {client.url}")))
        start = time.perf_counter()
        if episodes >= LOCKSTEP_FROM if together is None else together:
            playing = play_in_lockstep(client, make, seeds, explore=explore)
        else:
            playing = play_sequentially(client, make, seeds, None if quiet else _print_step, explore=explore)
        played = list(_with_progress(playing, client, episodes) if quiet else _print_each(playing))
        seconds = time.perf_counter() - start
    _print_summary(client, seconds, played)
    if cut := [episode.steps for episode in played if episode.cut]:
        click.secho(environments.cut_notice(len(cut), len(played), cut[0]), fg="yellow")
    return played


def _maker(environment: dict[str, Any]) -> MakeEnvironment:
    return partial(
        environments.make,
        environment["id"],
        environment["kwargs"],
        environment.get("wrappers", ()),
        max_episode_steps=environment.get("max_episode_steps", environments.MAX_EPISODE_STEPS),
    )


def _check_modules(environment: dict[str, Any], allowed: Sequence[str] | None) -> None:
    """Raise ImportRefused if the environment needs other modules than the allowed ones; None allows all."""
    if allowed is not None and (refused := refused_modules(environment, allowed)):
        raise ImportRefused(environment["id"], shlex.quote(",".join(refused)))


def _print_each(episodes: Iterator[Episode]) -> Iterator[Episode]:
    for episode in episodes:
        click.echo(f"episode with seed {episode.seed}: return {episode.episode_return:g} in {episode.steps} steps")
        yield episode


class _Requests(ProgressColumn):
    """The number of requests so far. In lockstep, no episode ends for a long time and then many at once."""

    def __init__(self, client: TimedClient) -> None:
        super().__init__()
        self._client = client

    def render(self, task: Task) -> Text:  # noqa: ARG002
        return Text(f"{len(self._client.latencies_s):,} requests")


def _with_progress(episodes: Iterator[Episode], client: TimedClient, total: int) -> Iterator[Episode]:
    """Yield the episodes, with a progress bar if stdout is a terminal."""
    console = Console()
    columns = (BarColumn(), MofNCompleteColumn(), "episodes", _Requests(client), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield from progress.track(episodes, total)


def _print_step(step: Step) -> None:
    """Print the first few steps and the last."""
    if step.number <= PRINTED_STEPS or step.done:
        click.echo(f"  step {step.number:>4}   observation {_shortened(step.observation)}   action {step.action}")
    elif step.number == PRINTED_STEPS + 1:
        click.echo("  ...")


def _shortened(observation: Any) -> str:
    if isinstance(observation, dict):
        return "{" + ", ".join(f"{key}: {_shortened(part)}" for key, part in observation.items()) + "}"
    if isinstance(observation, tuple):
        return "(" + ", ".join(map(_shortened, observation)) + ")"
    return np.array2string(np.asarray(observation), precision=3, suppress_small=True, threshold=8, floatmode="fixed")


def _print_summary(client: TimedClient, seconds: float, played: list[Episode]) -> None:
    returns = [episode.episode_return for episode in played]
    p50, p99 = 1e3 * np.percentile(client.latencies_s, (50, 99))
    requests, versions = len(client.latencies_s), sorted(client.versions)
    click.echo(
        f"{requests} requests in {seconds:.1f} s ({requests / seconds:.0f}/s), latency p50 {p50:.2f} ms, "
        f"p99 {p99:.2f} ms, answered by version {' and '.join(map(str, versions))}"
    )
    if recorded := sum(episode.recorded for episode in played):
        click.echo(f"{recorded} episodes recorded as experience")
    click.secho(
        f"{len(returns)} episodes: mean return {statistics.fmean(returns):.2f}, std {statistics.pstdev(returns):.2f}, "
        f"min {min(returns):g}, max {max(returns):g}",
        bold=True,
    )
