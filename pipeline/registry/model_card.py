"""Writes the model card: the description of a version in the registry."""

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from pipeline.config import TrainConfig
from pipeline.environments.make import Environment
from pipeline.environments.nested_spaces import to_json
from pipeline.evaluation.evaluation import Evaluation

#: The most characters of a space or an observation; most databases limit the whole card to 5,000.
_LONGEST = 600

_CARD = """\
PPO policy for **{env_id}**, trained with Ray RLlib, served as ONNX.

**Training** on `{env_id}`, {best_step:,} environment steps, seed {seed}{origin}. Run `{run_id}`, code `{commit}`.

**Settings** {network} network, discount {gamma:g}, lambda {lambda_:g}, learning rate {lr:g} to {lr_final:g}, \
{envs} environments, batches of {batch:,}. The run's parameters list all settings.

**Evaluation** mean greedy return **{mean:.1f}** over {episodes} episodes, on seeds that training did not use: \
standard deviation {std:.1f}, median {median:.1f}, from {minimum:.1f} to {maximum:.1f}. {verdict}

**Limits** Evaluated with greedy actions on unmodified `{env_id}` only; untested on changed dynamics and on \
observations far from those of its rollouts. Input: {observation_space}. \
Output: {action_space}.

**Query** after its promotion to Production, with `python -m serving run` running:

```
curl -s http://127.0.0.1:8000/cartpole-ppo -d '{{"observation": {example}}}'
```
"""


def write(
    config: TrainConfig,
    environment: Environment,
    evaluation: Evaluation,
    provenance: Mapping[str, str],
    *,
    run_id: str,
    best_step: int,
    target_return: float | None,
    origin: str | None,
) -> str:
    """Return the card as Markdown."""
    return _CARD.format(
        env_id=environment.id,
        best_step=best_step,
        seed=config.seed,
        origin="" if origin is None else f", starting from `{origin}`",
        run_id=run_id,
        commit=provenance["git_commit"],
        network=_network(config),
        gamma=config.gamma,
        lambda_=config.lambda_,
        lr=config.lr,
        lr_final=config.lr_final,
        envs=config.num_envs_per_env_runner * max(1, config.num_env_runners),
        batch=config.train_batch_size_per_learner,
        mean=evaluation.mean,
        episodes=len(evaluation.returns),
        std=evaluation.std,
        median=evaluation.median,
        minimum=evaluation.minimum,
        maximum=evaluation.maximum,
        verdict=_verdict(evaluation, target_return),
        observation_space=_short(" ".join(str(environment.observation_space).split())),
        action_space=_short(" ".join(str(environment.action_space).split())),
        example=_short(json.dumps(_example(environment))),
    )


def _example(environment: Environment) -> Any:
    """Return the first observation of an episode in JSON form."""
    with contextlib.closing(environment.make()) as made:
        observation, _ = made.reset(seed=0)
    return to_json(environment.observation_space, observation, digits=3)


def _short(text: str) -> str:
    """Return the text, truncated if it would fill the card, as the numbers of an image would."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def _network(config: TrainConfig) -> str:
    layers = "-".join(map(str, config.hidden_units)) + f" {config.fcnet_activation}"
    named = layers if config.rl_module == "default" else f"`{config.rl_module}`"
    return named if config.model_config == "{}" else f"{named} (`{config.model_config}`)"


def _verdict(evaluation: Evaluation, target_return: float | None) -> str:
    if target_return is None:
        return "Training had no target return."
    reached = "reached" if evaluation.mean >= target_return else "**not reached**"
    return f"The target return of {target_return:g} was {reached}."
