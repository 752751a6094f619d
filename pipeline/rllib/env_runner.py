"""Samples in whole arrays, with the same numbers as RLlib's environment runner.

RLlib's runner works per environment and step in Python, which takes longer than the networks of most policies.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
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

from pipeline.rllib.checked_sampling import FailureReporting
from pipeline.rllib.compat import CustomSamplingRunner, normalized

#: The metric that `log_return` logs.
EPISODE_RETURNS = "episode_returns"

_IN_32_BITS = {np.dtype(np.int64).char: np.int32, np.dtype(np.float64).char: np.float32}


def log_return(*, episode: Any, prev_episode_chunks: Any = None, metrics_logger: Any = None, **_: Any) -> None:
    """Log the return of a whole episode; RLlib calls this as `on_episode_end`."""
    chunks = [*(prev_episode_chunks or ()), episode]
    metrics_logger.log_value(EPISODE_RETURNS, sum(chunk.get_return() for chunk in chunks), reduce="item_series")


def mean_std_filter(*_: Any) -> MeanStdFilter:
    """Return RLlib's observation filter; RLlib calls this as `env_to_module_connector`."""
    return MeanStdFilter()


class _Steps(NamedTuple):
    """The results of one step of all environments, or of several steps.

    Each field is an array (or nested arrays) of shape `[environments, ...]`, or `[environments, steps, ...]`.
    Environments reset themselves in the step after the last one of an episode. `is_reset` marks such a step, which
    belongs to no episode.
    """

    observations: Any
    actions: Any
    rewards: NDArray[np.floating[Any]]
    outputs: dict[str, Any]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    is_reset: NDArray[np.bool_]


class RllibEnvRunner(FailureReporting, SingleAgentEnvRunner):  # type: ignore[misc]  # RLlib has no types
    """RLlib's environment runner, with named failures."""


class ArrayEnvRunner(FailureReporting, CustomSamplingRunner):
    """An environment runner that samples all environments at once; recurrent policies use RLlib's own loop.

    It ignores custom connectors except `mean_std_filter`, its episodes carry no infos, and it calls only
    `on_episode_end` of the callbacks within an episode.
    """

    #: The correlation of the exploration noise of successive steps; `with_correlated_noise` replaces it.
    noise_correlation = 0.0

    def make_env(self) -> None:
        """Build the environments; the next sampling resets them with the seed."""
        super().make_env()
        self._observations: Any = None
        self._noise: torch.Tensor | None = None

    def make_module(self) -> None:
        """Build the policy in evaluation mode, because RLlib would switch to it and back in every step."""
        super().make_module()
        self.module.eval()
        self._get_actions = GetActions()
        self._module_device = next(self.module.parameters()).device

    def sample_steps(self, num_steps: int, *, explore: bool, force_reset: bool) -> list[SingleAgentEpisode]:
        """Step all environments until they made `num_steps` steps, and return these as the base class describes."""
        if force_reset or self._observations is None:
            self._reset()
        first, steps, sampled = self._observations, [], 0
        while sampled < num_steps:
            steps.append(self._step(self.num_env_steps_sampled_lifetime + sampled, explore=explore))
            sampled += int(np.count_nonzero(~steps[-1].is_reset))
        return self._cut(first, steps)

    def _reset(self) -> None:
        # Environments that are built again play other episodes.
        seed = self.seed + self.num_envs * (self.times_made - 1) if self._observations is None else None
        observations, _ = self.env.reset(seed=seed)
        self._observations = self._filtered(observations)
        self._is_done = np.zeros(self.num_envs, np.bool_)
        # The current episode of each environment, with its id and length, but without its steps so far.
        self._current = [SingleAgentEpisode() for _ in range(self.num_envs)]

    def _step(self, env_steps: int, *, explore: bool) -> _Steps:
        observations = tree.map_structure(np.ascontiguousarray, self._observations)
        batch = {Columns.OBS: convert_to_torch_tensor(observations, device=self._module_device)}
        with torch.no_grad():
            outputs = self.forward(batch, explore=explore, t=env_steps)
            if explore and self.noise_correlation:
                outputs |= self._sampled_with_correlated_noise(outputs[Columns.ACTION_DIST_INPUTS])
            outputs = self._get_actions(rl_module=self.module, batch=outputs, episodes=[None], explore=explore)
        outputs = {name: _array(output) for name, output in outputs.items()}
        actions, was_done = outputs.pop(Columns.ACTIONS), self._is_done
        outputs[WEIGHTS_SEQ_NO] = np.full(self.num_envs, self.weights_number)
        space = get_base_struct_from_space(self.env.single_action_space)
        step_actions = (unsquash_action if self.config.normalize_actions else clip_action)(actions, space)
        observations, rewards, terminated, truncated, _ = self.env.step(step_actions)
        self._observations = self._filtered(observations)
        self._is_done = terminated | truncated
        return _Steps(self._observations, actions, rewards, outputs, terminated, truncated, was_done)

    def _filtered(self, observations: Any) -> Any:
        """Return the observations normalized by the filter, which learns from them first; without one, as they are."""
        return observations if self.filter is None else normalized(self.filter, observations)

    def _sampled_with_correlated_noise(self, dist_inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return actions of a diagonal Gaussian whose noise is an autoregressive process of first order.

        The noise of each single step has the standard normal distribution, so the log-probabilities are those of the
        policy. The noise of steps that are k apart has the correlation `noise_correlation**k`.
        """
        means, log_stds = dist_inputs.chunk(2, dim=-1)
        fresh, correlation = torch.randn_like(means), self.noise_correlation
        if self._noise is None:
            self._noise = fresh
        else:
            self._noise = correlation * self._noise + (1 - correlation**2) ** 0.5 * fresh
        actions = means + log_stds.exp() * self._noise
        distribution = self.module.get_exploration_action_dist_cls().from_logits(dist_inputs)
        return {Columns.ACTIONS: actions, Columns.ACTION_LOGP: distribution.logp(actions)}

    def _cut(self, first: Any, steps: Sequence[_Steps]) -> list[SingleAgentEpisode]:
        """Cut steps into episodes; `first` are the observations before the first step."""
        observations = tree.map_structure(_stack, first, *(step.observations for step in steps))
        stacked = tree.map_structure(_stack, *(step._replace(observations=()) for step in steps))
        episodes = []
        for index in range(self.num_envs):
            for begin, end in _segments(stacked.is_reset[index]):
                if begin:
                    self._current[index] = SingleAgentEpisode()
                if begin < end:
                    episode = self._episode(index, begin, end, observations, stacked)
                    episodes.append((not episode.is_done, end, episode))
        return [episode for *_, episode in sorted(episodes, key=lambda each: each[:2])]

    def _episode(self, index: int, begin: int, end: int, observations: Any, steps: _Steps) -> SingleAgentEpisode:
        """Return the steps from `begin` to before `end` of an environment, copied so that the stack can be freed."""

        def cut(arrays: Any, end: int = end) -> InfiniteLookbackBuffer:
            return InfiniteLookbackBuffer(tree.map_structure(lambda array: array[index, begin:end].copy(), arrays))

        current = self._current[index]
        episode = SingleAgentEpisode(
            current.id_,
            observations=cut(observations, end + 1),
            observation_space=self.env.single_observation_space,
            infos=[{}] * (end + 1 - begin),
            actions=cut(steps.actions),
            action_space=self.env.single_action_space,
            rewards=cut(steps.rewards),
            terminated=bool(steps.terminated[index, end - 1]),
            truncated=bool(steps.truncated[index, end - 1]),
            extra_model_outputs={name: cut(arrays) for name, arrays in steps.outputs.items()},
            t_started=current.t,
            len_lookback_buffer=0,
        )
        self._current[index] = SingleAgentEpisode(current.id_, t_started=episode.t)
        return episode


def _array(output: Any) -> Any:
    """Return a tensor as an array of at most 32 bits per number, as `convert_to_numpy` does for nested tensors, too."""
    if not isinstance(output, torch.Tensor):
        return convert_to_numpy(output)
    array = output.cpu().numpy()
    return array.astype(_IN_32_BITS[array.dtype.char]) if array.dtype.char in _IN_32_BITS else array


def with_correlated_noise(correlation: float) -> type[ArrayEnvRunner]:
    """Return the class of runners that explore with correlated noise; RLlib makes runners from a class alone."""
    return type("ArrayEnvRunner", (ArrayEnvRunner,), {"noise_correlation": correlation})


def _stack(*steps: NDArray[Any]) -> NDArray[Any]:
    """Stack the arrays `[environments, ...]` of single steps into one of `[environments, steps, ...]`."""
    return np.stack(steps, axis=1)


def _segments(is_reset: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yield the first step of each episode of one environment, and the step after its last; equal if it is empty."""
    resets = np.flatnonzero(is_reset)
    return zip([0, *(resets + 1)], [*resets, len(is_reset)], strict=True)
