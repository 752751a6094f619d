"""Writes the model card: the description of a version in the registry."""

import contextlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.config import TrainConfig
from pipeline.environments.make import Environment
from pipeline.environments.nested_spaces import flatten, nest
from pipeline.evaluation.evaluation import Evaluation
from serving.policy.spaces import leaves
from serving.registry.model_uri import route_prefix

#: The most characters of a space and of an observation; most databases limit the whole card to 5,000.
_LONGEST_SPACE, _LONGEST_OBSERVATION = 600, 1500

_CARD = """\
{method.name} policy for **{env_id}**, trained with Ray RLlib, served as ONNX.

**Training** {training}, seed {config.seed}{origin}. \
Run `{run_id}`, code `{commit}`.

**Settings** {network} network, discount {config.gamma:g}, lambda {config.lambda_:g}, \
learning rate {config.lr:g} to {config.lr_final:g}, {envs} environments, \
batches of {config.train_batch_size_per_learner:,}. The run's parameters list all settings.

**Evaluation** mean greedy return **{evaluation.mean:.1f}** over {episodes} episodes, on seeds that training did not \
use: standard deviation {evaluation.std:.1f}, median {evaluation.median:.1f}, \
from {evaluation.minimum:.1f} to {evaluation.maximum:.1f}. {verdict}

**Limits** Evaluated with greedy actions on unmodified `{env_id}` only; untested on changed dynamics and on \
observations far from those of its rollouts. Input: {observation_space}. \
Output: {action_space}.

**Query** after its promotion to Production, with `{serve}` running:

```
{query}
```
"""


@dataclass(frozen=True)
class Method:
    """How a policy was trained, if not with PPO in the environment.

    Attributes:
        name: The algorithms.
        learned_from: What the policy was trained on, as a part of a sentence; empty for PPO's environment steps.
        tags: Tags of the version that name what it was trained on.
    """

    name: str = "PPO"
    learned_from: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


def write(
    config: TrainConfig,
    environment: Environment,
    evaluation: Evaluation,
    *,
    run_id: str,
    commit: str,
    best_step: int,
    target_return: float | None,
    origin: str | None,
    method: Method | None = None,
) -> str:
    """Return the card as Markdown."""
    method = method or Method()
    return _CARD.format(
        method=method,
        training=method.learned_from or f"on `{environment.id}`, {best_step:,} environment steps",
        config=config,
        evaluation=evaluation,
        env_id=environment.id,
        run_id=run_id,
        commit=commit,
        origin="" if origin is None else f", starting from `{origin}`",
        network=_network(config),
        envs=config.num_envs_per_env_runner * max(1, config.num_env_runners),
        episodes=len(evaluation.returns),
        verdict=_verdict(evaluation, target_return),
        observation_space=_short(environment.observation_space),
        action_space=_short(environment.action_space),
        serve=_serve(config.registered_model_name),
        query=_query(config.registered_model_name, json.dumps(example(environment))),
    )


def _serve(name: str) -> str:
    """Return the command that serves the version in Production."""
    command = "python -m serving run"
    if name == TrainConfig.registered_model_name:
        return command
    return f"{command} --model-uri {shlex.quote(f'models:/{name}/Production')}"


def _query(name: str, example: str) -> str:
    """Return a command that queries the served version; with an observation, unless that would fill the card."""
    url = f"http://127.0.0.1:8000{route_prefix(name)}"
    if len(example) > _LONGEST_OBSERVATION:
        return f"curl -s {url}/model   # what observations look like"
    body = shlex.quote(f'{{"observation": {example}}}')
    return f"curl -s {url} -d {body}"


def example(environment: Environment) -> Any:
    """Return the first observation of an episode in JSON form, its floats rounded to 3 digits."""
    with contextlib.closing(environment.make()) as made:
        observation, _ = made.reset(seed=0)
    space = environment.observation_space
    values = zip(leaves(space), flatten(space, observation), strict=True)
    arrays = [np.asarray(value, leaf.space.dtype) for leaf, value in values]
    rounded = [each.astype(np.float64).round(3) if each.dtype.kind == "f" else each for each in arrays]
    return nest(space, [each.tolist() for each in rounded])


def _short(space: object) -> str:
    """Return the text of a space on one line, truncated if it would fill the card."""
    text = " ".join(str(space).split())
    return text if len(text) <= _LONGEST_SPACE else f"{text[:_LONGEST_SPACE]} ..."


def _network(config: TrainConfig) -> str:
    layers = "-".join(map(str, config.hidden_units)) + f" {config.fcnet_activation}"
    named = layers if config.rl_module == "default" else f"`{config.rl_module}`"
    return named if config.model_config == "{}" else f"{named} (`{config.model_config}`)"


def _verdict(evaluation: Evaluation, target_return: float | None) -> str:
    if target_return is None:
        return "Training had no target return."
    reached = "reached" if evaluation.mean >= target_return else "**not reached**"
    return f"The target return of {target_return:g} was {reached}."
