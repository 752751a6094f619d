"""What `python -m serving query` does: play episodes through HTTP and show them."""

import statistics
from collections.abc import Iterator
from typing import Any

import click
import gymnasium
import numpy as np

from serving.client.client import PolicyClient
from serving.commands.episodes import Episode, MakeEnvironment, OnStep, Step, play_one, play_together
from serving.policy import environments
from serving.replica.auth import read_token

SHOWN_STEPS = 3
TOGETHER_FROM = 20
"""From this many episodes on they are played in lockstep, one request for all, unless asked otherwise."""


def query(
    url: str,
    *,
    episodes: int,
    env_id: str | None,
    seed: int,
    quiet: bool,
    together: bool | None,
    token_file: str | None = None,
    explore: bool = False,
) -> list[Episode]:
    """Play episodes with the policy at `url`, seeded from `seed` on, and print steps, returns and their mean.

    With `explore` actions are sampled.

    Raises:
        ServerUnreachable, RequestRefused: as the client does.
        TokenFileInvalid: there is no token in the file.
        EnvironmentUnknown: the environment cannot be made.
    """
    with PolicyClient(url, token=token_file and read_token(token_file)) as client:
        model = client.model()
        described = {"id": env_id, "kwargs": {}} if env_id else model["environment"]
        environment, make = described["id"], _maker(described)
        click.echo(f"{model['name']} version {model['version']} plays {environment} through {client.url}")
        in_lockstep = episodes >= TOGETHER_FROM if together is None else together
        seeds = range(seed, seed + episodes)
        playing = (
            play_together(client, make, seeds, explore=explore)
            if in_lockstep
            else _one_by_one(client, make, seeds, _ignore if quiet else _show, explore=explore)
        )
        played = list(_shown(playing))
    _summarize(played)
    return played


def _maker(described: dict[str, Any]) -> MakeEnvironment:
    """Return a function that makes the environment, after making it once to see that it can be made."""

    def make() -> gymnasium.Env[Any, Any]:
        return environments.make(described["id"], described["kwargs"], described.get("wrappers", ()))

    make().close()  # type: ignore[no-untyped-call]
    return make


def _one_by_one(
    client: PolicyClient, make: MakeEnvironment, seeds: range, on_step: OnStep, *, explore: bool
) -> Iterator[Episode]:
    environment = make()
    try:
        for seed in seeds:
            yield play_one(client, environment, seed, on_step, explore=explore)
    finally:
        environment.close()  # type: ignore[no-untyped-call]


def _shown(episodes: Iterator[Episode]) -> Iterator[Episode]:
    for episode in episodes:
        click.echo(f"episode with seed {episode.seed}: return {episode.episode_return:g} in {episode.steps} steps")
        yield episode


def _show(step: Step) -> None:
    """Show the first few steps and the last."""
    if step.number <= SHOWN_STEPS or step.done:
        click.echo(f"  step {step.number:>4}   observation {_shortened(step.observation)}   action {step.action}")
    elif step.number == SHOWN_STEPS + 1:
        click.echo("  ...")


def _shortened(observation: Any) -> str:
    if isinstance(observation, dict):
        return "{" + ", ".join(f"{key}: {_shortened(part)}" for key, part in observation.items()) + "}"
    if isinstance(observation, tuple):
        return "(" + ", ".join(map(_shortened, observation)) + ")"
    return np.array2string(np.asarray(observation), precision=3, suppress_small=True, threshold=8, floatmode="fixed")


def _ignore(step: Step) -> None:
    pass


def _summarize(episodes: list[Episode]) -> None:
    returns = [episode.episode_return for episode in episodes]
    mean, deviation = statistics.fmean(returns), statistics.pstdev(returns)
    click.secho(
        f"{len(returns)} episodes: mean return {mean:.2f}, std {deviation:.2f}, min {min(returns):g}",
        bold=True,
    )
