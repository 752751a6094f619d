"""Sampling as RLlib's own environment runner does, number for number, but by whole arrays.

RLlib's works per environment and step, which for small networks takes longer than all that is computed.
"""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import tree
from numpy.typing import NDArray
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.connectors.module_to_env import GetActions
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO
from ray.rllib.utils.numpy import convert_to_numpy
from ray.rllib.utils.spaces.space_utils import clip_action, get_base_struct_from_space, unsquash_action
from ray.rllib.utils.torch_utils import convert_to_torch_tensor

#: The metric that `log_return` logs.
EPISODE_RETURNS = "episode_returns"


def log_return(*, episode: Any, prev_episode_chunks: Any = None, metrics_logger: Any = None, **_: Any) -> None:
    """RLlib's callback `on_episode_end`: record the whole return."""
    chunks = [*(prev_episode_chunks or ()), episode]
    metrics_logger.log_value(EPISODE_RETURNS, sum(chunk.get_return() for chunk in chunks), reduce="item_series")


def mean_std_filter(*_: Any) -> MeanStdFilter:
    """RLlib's filter, for its setting `env_to_module_connector`."""
    return MeanStdFilter()


@dataclass
class _Episode:
    """The one that an environment is in."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    steps: int = 0


class _Steps(NamedTuple):
    """What a step gave, an array (or a structure of arrays) each: `[environments, ...]`; or steps, one after another.

    An environment whose episode ended is reset by the next step: that one `is_reset`, and no step of an episode.
    """

    observations: Any
    actions: Any
    rewards: NDArray[np.floating[Any]]
    outputs: dict[str, Any]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    is_reset: NDArray[np.bool_]


class ArrayEnvRunner(SingleAgentEnvRunner):  # type: ignore[misc]  # RLlib has no types
    """RLlib's environment runner for policies without recurrent state; with that, it is RLlib's own.

    Connectors besides RLlib's own are not asked, episodes carry no infos, and of the callbacks within an episode only
    `on_episode_end` is made.
    """

    _needs_initial_reset: bool

    def make_module(self) -> None:
        """As RLlib's, in evaluation mode: it would go there and back for every step."""
        super().make_module()
        self.module.eval()

    def _sample(
        self, *, num_timesteps: int | None = None, explore: bool, force_reset: bool = False, **more: Any
    ) -> list[SingleAgentEpisode]:
        if num_timesteps is None or self.module.is_stateful():
            episodes: list[SingleAgentEpisode] = super()._sample(
                num_timesteps=num_timesteps, explore=explore, force_reset=force_reset, **more
            )
            return episodes
        if force_reset or self._needs_initial_reset:
            self._reset()
        first, steps, sampled = self._observations, [], 0
        while sampled < num_timesteps:
            steps.append(self._step(self.num_env_steps_sampled_lifetime + sampled, explore=explore))
            sampled += int(np.count_nonzero(~steps[-1].is_reset))
        done, ongoing = self._cut(first, steps)
        for episode in done:
            self._make_on_episode_callback("on_episode_end", 0, [episode])
        self._done_episodes_for_metrics.extend(done)
        for episode in ongoing:
            self._ongoing_episodes_for_metrics[episode.id_].append(episode)
        self._log_env_steps(metric=self._metrics_num_env_steps_sampled, num_steps=sampled)
        self._increase_sampled_metrics(sampled, len(done))
        return done + ongoing

    def _reset(self) -> None:
        seed = self._seed if self._needs_initial_reset else None
        self._observations, _ = self._try_env_reset(seed=seed, options=None)
        self._needs_initial_reset = False
        self._is_done = np.zeros(self.num_envs, np.bool_)
        self._current = [_Episode() for _ in range(self.num_envs)]
        self._ongoing_episodes_for_metrics.clear()

    def _step(self, env_steps: int, *, explore: bool) -> _Steps:
        observations = tree.map_structure(np.ascontiguousarray, self._observations)
        batch = {Columns.OBS: convert_to_torch_tensor(observations, device=self._device)}
        forward = self.module.forward_exploration if explore else self.module.forward_inference
        outputs = forward(batch, t=env_steps)
        outputs = GetActions()(rl_module=self.module, batch=outputs, episodes=[None], explore=explore)
        outputs = convert_to_numpy(outputs)
        actions, was_done = outputs.pop(Columns.ACTIONS), self._is_done
        outputs[WEIGHTS_SEQ_NO] = np.full(self.num_envs, self._weights_seq_no)
        self._observations, rewards, terminated, truncated, _ = self._try_env_step(self._bounded(actions))
        self._is_done = terminated | truncated
        return _Steps(self._observations, actions, rewards, outputs, terminated, truncated, was_done)

    def _bounded(self, actions: Any) -> Any:
        space = get_base_struct_from_space(self.env.single_action_space)
        return (unsquash_action if self.config.normalize_actions else clip_action)(actions, space)

    def _cut(self, first: Any, steps: Sequence[_Steps]) -> tuple[list[SingleAgentEpisode], list[SingleAgentEpisode]]:
        """The episodes that ended, in that order, and what there is of those that go on, by environment."""
        observations = tree.map_structure(_stack, first, *(step.observations for step in steps))
        stacked = tree.map_structure(_stack, *(step._replace(observations=()) for step in steps))
        done: list[tuple[int, SingleAgentEpisode]] = []
        ongoing = []
        for index in range(self.num_envs):
            for begin, end in _segments(stacked.is_reset[index]):
                if begin:
                    self._current[index] = _Episode()
                if begin == end:
                    continue
                episode = self._episode(index, begin, end, observations, stacked)
                if episode.is_done:
                    done.append((end, episode))
                else:
                    ongoing.append(episode)
        return [episode for _, episode in sorted(done, key=lambda each: each[0])], ongoing

    def _episode(self, index: int, begin: int, end: int, observations: Any, steps: _Steps) -> SingleAgentEpisode:
        """Steps `begin` to `end`, exclusive, of an environment; copied, so that they outlive what they are cut from."""

        def cut(arrays: Any, end: int = end) -> InfiniteLookbackBuffer:
            return InfiniteLookbackBuffer(tree.map_structure(lambda array: array[index, begin:end].copy(), arrays))

        current = self._current[index]
        episode = SingleAgentEpisode(
            current.id,
            observations=cut(observations, end + 1),
            observation_space=self.env.single_observation_space,
            infos=[{}] * (end + 1 - begin),
            actions=cut(steps.actions),
            action_space=self.env.single_action_space,
            rewards=cut(steps.rewards),
            terminated=bool(steps.terminated[index, end - 1]),
            truncated=bool(steps.truncated[index, end - 1]),
            extra_model_outputs={name: cut(arrays) for name, arrays in steps.outputs.items()},
            t_started=current.steps,
            len_lookback_buffer=0,
        )
        current.steps = episode.t
        return episode


def _stack(*steps: NDArray[Any]) -> NDArray[Any]:
    """Arrays `[environments, ...]` of one step each -> `[environments, steps, ...]`."""
    return np.stack(steps, axis=1)


def _segments(is_reset: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """First step, and the one after the last, of each episode that an environment was in; a new one may have none."""
    resets = np.flatnonzero(is_reset)
    return zip([0, *(resets + 1)], [*resets, len(is_reset)], strict=True)
