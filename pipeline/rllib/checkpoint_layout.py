"""The paths inside an RLlib checkpoint, and what training and export load from them."""

import pickle
from pathlib import Path
from typing import Any

from ray.rllib.core.rl_module.torch import TorchRLModule

from pipeline.export.observation_filter import FrozenFilter

#: The networks of all policies; also the name of the component that `restore_from_path` restores.
MODULES = "learner_group/learner/rl_module"


def load_module(checkpoint: Path) -> TorchRLModule:
    """Return the network of the policy, with its weights."""
    return TorchRLModule.from_checkpoint(checkpoint / MODULES / "default_policy")


def load_filter(checkpoint: Path) -> FrozenFilter | None:
    """Return the observation filter that the policy was trained behind, or None if it was trained without one."""
    state = filter_state(checkpoint)
    return None if state is None else FrozenFilter(state)


def filter_state(checkpoint: Path) -> dict[Any, Any] | None:
    """Return the state of RLlib's connector `MeanStdFilter`, or None if the policy was trained without one."""
    file = connectors(checkpoint) / "env_to_module_connector" / "MeanStdFilter" / "state.pkl"
    if not file.is_file():
        return None
    state: dict[Any, Any] = pickle.loads(file.read_bytes())  # noqa: S301  # checkpoints are pickles
    return state


def connectors(checkpoint: Path) -> Path:
    """Return the directory of the connectors `env_to_module_connector` and `module_to_env_connector`."""
    # RLlib writes them to the top level if no environment runner was local.
    return next(each for each in (checkpoint / "env_runner", checkpoint) if (each / "env_to_module_connector").is_dir())
