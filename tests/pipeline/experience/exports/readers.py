"""Loads an export with the library that it is for, and prints its episodes as JSON.

It runs in the environment of `make test-exports`, whose packages contradict those of this project. Its arguments are
the library and the path.
"""

import json
import os
import sys
from typing import Any

import numpy as np


def read_minari(root: str) -> dict[str, Any]:
    """All episodes of the dataset in a root of datasets."""
    os.environ["MINARI_DATASETS_PATH"] = root
    import minari

    (name,) = minari.list_local_datasets()
    dataset = minari.load_dataset(name)
    episodes = [
        {
            "observations": plain(each.observations),
            "actions": plain(each.actions),
            "rewards": plain(each.rewards),
            "terminated": plain(each.terminations),
            "truncated": plain(each.truncations),
        }
        for each in dataset.iterate_episodes()
    ]
    return {
        "name": name,
        "total_steps": int(dataset.total_steps),
        "observation_space": str(dataset.observation_space),
        "action_space": str(dataset.action_space),
        "environment": None if dataset.env_spec is None else dataset.recover_environment().unwrapped.spec.id,
        "episodes": episodes,
    }


def read_d3rlpy(file: str) -> dict[str, Any]:
    """All episodes of a replay buffer, and whether a step of training works with it."""
    import d3rlpy

    with open(file, "rb") as stream:  # noqa: PTH123 - as d3rlpy documents it
        buffer = d3rlpy.dataset.ReplayBuffer.load(stream, d3rlpy.dataset.InfiniteBuffer())
    episodes = [
        {
            "observations": plain(each.observations),
            "actions": plain(each.actions),
            "rewards": plain(each.rewards),
            "terminated": bool(each.terminated),
            "dtypes": [str(each.observations.dtype), str(each.actions.dtype)],
        }
        for each in buffer.episodes
    ]
    is_discrete = buffer.dataset_info.action_space == d3rlpy.ActionSpace.DISCRETE
    config = d3rlpy.algos.DiscreteBCConfig if is_discrete else d3rlpy.algos.BCConfig
    algorithm = config(batch_size=4).create(device="cpu:0")
    losses = algorithm.fit(
        buffer, n_steps=2, n_steps_per_epoch=2, logger_adapter=d3rlpy.logging.NoopAdapterFactory(), show_progress=False
    )
    loss = losses[0][1]["loss"]
    return {"episodes": episodes, "transitions": buffer.transition_count, "loss_is_finite": bool(np.isfinite(loss))}


def plain(value: Any) -> Any:
    """A nested value of arrays as one of lists."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    return np.asarray(value).tolist()


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"minari": read_minari, "d3rlpy": read_d3rlpy}[sys.argv[1]](sys.argv[2])))
