"""Acts with a checkpoint as RLlib's environment runner does: with RLlib's own module and connectors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tree
from gymnasium import Space
from numpy.typing import NDArray
from ray.rllib.connectors.env_to_module import EnvToModulePipeline, MeanStdFilter
from ray.rllib.connectors.module_to_env import ModuleToEnvPipeline
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.spaces.space_utils import unbatch

from pipeline.environments.action_adapters import adapted, from_policy
from pipeline.environments.nested_spaces import stack
from pipeline.evaluation.player import State
from pipeline.export.recurrent_state import StateLayout
from pipeline.rllib import compat
from pipeline.rllib.checkpoint_layout import connectors, load_module
from serving.policy.tensors import ACTION, ACTION_DIST_INPUTS


class Reference:
    """A policy that RLlib restored from a checkpoint directory, for an environment with these spaces."""

    def __init__(self, checkpoint: Path, observation_space: Space[Any], action_space: Space[Any]) -> None:
        self._observation_space = observation_space
        self._action_space = action_space
        self._module = load_module(checkpoint)
        self._state = StateLayout.of(self._module, with_critic=False)
        directory = connectors(checkpoint)
        self._env_to_module = EnvToModulePipeline.from_checkpoint(directory / "env_to_module_connector")
        self._module_to_env = ModuleToEnvPipeline.from_checkpoint(directory / "module_to_env_connector")
        for connector in self._env_to_module.connectors:
            if isinstance(connector, MeanStdFilter):
                compat.freeze(connector)

    def act(self, observations: Sequence[Any], states: Sequence[State]) -> dict[str, NDArray[Any]]:
        """Compute the greedy actions of one step, one for each episode.

        Args:
            observations: Elements of the observation space.
            states: The state of each episode before the step.

        Returns:
            The actions, in the environment's space, and `action_dist_inputs`, by the names of the graph's outputs.
        """
        episodes = [self._episode(*each) for each in zip(observations, states, strict=True)]
        return self._step(episodes, explore=False)

    def sample(self, observation: Any, state: State, count: int) -> dict[str, NDArray[Any]]:
        """Draw `count` samples of the action for one observation. Returns as `act`."""
        return self._step([self._episode(observation, state)], explore=True, count=count)

    def _step(self, episodes: list[SingleAgentEpisode], *, explore: bool, count: int = 1) -> dict[str, NDArray[Any]]:
        """Compute `count` actions for each episode from one forward pass."""
        shared: dict[str, Any] = {}
        common = {"explore": explore, "rl_module": self._module, "shared_data": shared, "episodes": episodes}
        with torch.inference_mode():
            to_module = self._env_to_module(batch={}, **common)
            forward = self._module.forward_exploration if explore else self._module.forward_inference
            inputs = forward(to_module)[Columns.ACTION_DIST_INPUTS].repeat_interleave(count, dim=0)
            compat.repeat_rows(shared, count)
            # RLlib fails to compute the log-probability of greedy Dict and Tuple actions; this one is not used.
            batch = {Columns.ACTION_DIST_INPUTS: inputs, Columns.ACTION_LOGP: torch.zeros(len(inputs))}
            to_env = self._module_to_env(batch=batch, **common)
        actions = unbatch(to_env.get(Columns.ACTIONS_FOR_ENV, to_env[Columns.ACTIONS]))
        for_environment = [from_policy(self._action_space, action) for action in actions]
        logits = np.stack(to_env[Columns.ACTION_DIST_INPUTS])
        return {**stack(self._action_space, for_environment, ACTION), ACTION_DIST_INPUTS: logits}

    def _episode(self, observation: Any, state: State) -> SingleAgentEpisode:
        spaces = {"observation_space": self._observation_space, "action_space": adapted(self._action_space)}
        episode = SingleAgentEpisode(**spaces)
        episode.add_env_reset(observation)
        if state:
            episode.add_env_step(
                observation,
                spaces["action_space"].sample(),
                0.0,
                extra_model_outputs={Columns.STATE_OUT: self._nested(state)},
            )
        return episode

    def _nested(self, state: State) -> Any:
        """Return one episode's state as RLlib nests it."""
        rows = [torch.from_numpy(np.asarray(state[name]))[None] for name in self._state.shapes]
        return tree.map_structure(lambda batch: batch[0].numpy(), self._state.nest(rows))
