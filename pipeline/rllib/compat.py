"""Every use of private parts of Ray and RLlib by this package, written for Ray 2.60.

When a part is missing in another version, training logs a warning and uses the public way, which is slower. Where there
is none, the command ends with an error that names the part.
"""

import contextlib
import functools
import itertools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import ray
import torch
from gymnasium import Space
from numpy.typing import NDArray
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.core.models.base import Encoder
from ray.rllib.core.models.configs import ModelConfig
from ray.rllib.core.models.torch.heads import TorchFreeLogStdMLPHead
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.filter import RunningStat

from pipeline.errors import RllibUnsupported

_logger = logging.getLogger(__name__)

#: The private members of RLlib's environment runner that `CustomSamplingRunner` uses or overrides.
_SAMPLING_MEMBERS = (
    "_sample",
    "_seed",
    "_weights_seq_no",
    "_done_episodes_for_metrics",
    "_ongoing_episodes_for_metrics",
    "_increase_sampled_metrics",
    "_make_on_episode_callback",
    "_env_to_module",
    "_forward_exploration",
    "_forward_inference",
)

#: The private members of RLlib's learner and its modules that `CustomLearner` uses.
_LEARNING_MEMBERS = (
    "_weights_seq_no",
    "_make_batch_if_necessary",
    "_log_steps_trained_metrics",
    "_forward_train",
)


def supports_custom_sampling() -> bool:
    """Return whether `CustomSamplingRunner` works with the installed RLlib; log a warning if it does not."""
    used = _names_in(SingleAgentEnvRunner.__init__), _names_in(EnvRunner.__init__)
    known = {*dir(SingleAgentEnvRunner), *dir(TorchRLModule), *itertools.chain(*used)}
    missing = [f"SingleAgentEnvRunner.{name}" for name in _SAMPLING_MEMBERS if name not in known]
    return _has_all(missing, "samples with RLlib's own environment runner", "sampling")


def supports_custom_learning() -> bool:
    """Return whether `CustomLearner` works with the installed RLlib; log a warning if it does not."""
    known = {*dir(PPOTorchLearner), *dir(TorchRLModule), *_names_in(PPOTorchLearner.update)}
    missing = [f"PPOTorchLearner.{name}" for name in _LEARNING_MEMBERS if name not in known]
    return _has_all(missing, "learns with RLlib's own loop", "learning")


def _has_all(missing: Sequence[str], fallback: str, option: str) -> bool:
    if missing:
        _logger.warning(
            "RLlib %s has no %s: training %s, which is slower. --%s rllib silences this warning.",
            ray.__version__,
            ", ".join(missing),
            fallback,
            option,
        )
    return not missing


class CustomSamplingRunner(SingleAgentEnvRunner):  # type: ignore[misc]  # RLlib has no types
    """RLlib's environment runner with a replaceable sampling loop; subclasses implement `sample_steps`."""

    #: The seed of this runner's environments, or None.
    seed = property(attrgetter("_seed"))
    #: The sequence number of the weights that the learner sent last.
    weights_number = property(attrgetter("_weights_seq_no"))

    @property
    def filter(self) -> MeanStdFilter | None:
        """The filter of observations, or None."""
        return next((each for each in self._env_to_module.connectors if isinstance(each, MeanStdFilter)), None)

    def forward(self, batch: dict[str, Any], *, explore: bool, **more: Any) -> dict[str, Any]:
        """Return the outputs of the module, which is in evaluation mode; RLlib would switch to it in every step."""
        function = self.module._forward_exploration if explore else self.module._forward_inference
        return dict(function(batch, **more))

    def sample_steps(self, num_steps: int, *, explore: bool, force_reset: bool) -> list[SingleAgentEpisode]:
        """Return `num_steps` steps or more: first the ended episodes by their ends, then parts of unfinished ones."""
        raise NotImplementedError

    def _sample(
        self, *, num_timesteps: int | None = None, explore: bool, force_reset: bool = False, **more: Any
    ) -> list[SingleAgentEpisode]:
        """Sample with `sample_steps`; RLlib's own loop samples whole episodes, and episodes of recurrent policies."""
        if num_timesteps is None or self.module.is_stateful():
            return list(super()._sample(num_timesteps=num_timesteps, explore=explore, force_reset=force_reset, **more))
        if force_reset:
            self._ongoing_episodes_for_metrics.clear()
        sampled = self.sample_steps(num_timesteps, explore=explore, force_reset=force_reset)
        done = [episode for episode in sampled if episode.is_done]
        for episode in done:
            self._make_on_episode_callback("on_episode_end", 0, [episode])
        self._done_episodes_for_metrics.extend(done)
        for episode in sampled[len(done) :]:
            self._ongoing_episodes_for_metrics[episode.id_].append(episode)
        self._increase_sampled_metrics(sum(map(len, sampled)), len(done))
        return sampled


class CustomLearner(PPOTorchLearner):  # type: ignore[misc]  # as above
    """RLlib's PPO learner with a replaceable loop over minibatches; subclasses implement `learn`."""

    def learn(
        self, module: TorchRLModule, batch: Mapping[str, Any], num_epochs: int, minibatch_size: int
    ) -> dict[str, torch.Tensor]:
        """Change the weights of the module by what a batch of columns `[rows, ...]` teaches, and return metrics."""
        raise NotImplementedError

    def forward_train(self, module: TorchRLModule, minibatch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the outputs of a module in training mode, without switching to this mode each time."""
        return dict(module._forward_train(minibatch))

    def update(
        self,
        *,
        training_data: TrainingData | None = None,
        timesteps: dict[str, Any] | None = None,
        num_epochs: int = 1,
        minibatch_size: int | None = None,
        **more: Any,
    ) -> Any:
        """Learn with `learn`; several learners and recurrent policies use RLlib's own loop."""
        module = self.module[DEFAULT_MODULE_ID]
        uses_rllibs = module.is_stateful() or self.config.num_learners > 1
        if uses_rllibs or training_data is None or minibatch_size is None:
            settings = {"num_epochs": num_epochs, "minibatch_size": minibatch_size, **more}
            return super().update(training_data=training_data, timesteps=timesteps, **settings)
        self.before_gradient_based_update(timesteps=timesteps or {})
        training_data.solve_refs()
        self._weights_seq_no += 1
        batch = self._make_batch_if_necessary(training_data)
        results = self.learn(module, batch.policy_batches[DEFAULT_MODULE_ID], num_epochs, minibatch_size)
        self._log_steps_trained_metrics(batch)
        self.metrics.log_dict(results, key=DEFAULT_MODULE_ID, window=1)
        self.after_gradient_based_update(timesteps=timesteps or {})
        return self.metrics.reduce()


@contextlib.contextmanager
def without_ray() -> Iterator[None]:
    """Let RLlib train in this process without Ray, whose start keeps two cores busy for seconds.

    RLlib stores configuration and weights with `ray.put` for remote environment runners even if there are none. Within
    the block, `ray.put` returns its argument. If RLlib no longer calls `ray.put`, the block starts a Ray instead.
    """
    if "put" not in _names_in(EnvRunnerGroup.__init__):
        _logger.warning("RLlib %s does not store weights with ray.put: training starts a Ray.", ray.__version__)
        settings = {"include_dashboard": False, "num_cpus": 0, "logging_level": logging.ERROR, "log_to_driver": False}
        with ray.init(address="local", **settings):
            yield
        return
    put, ray.put = ray.put, lambda value: value
    try:
        yield
    finally:
        ray.put = put


class CustomEncoderCatalog(PPOCatalog):  # type: ignore[misc]  # as above
    """PPO's catalog of networks with a replaceable encoder; subclasses override `custom_encoder`."""

    @classmethod
    def custom_encoder(cls, observation_space: Space[Any], model_config: dict[str, Any]) -> ModelConfig | None:  # noqa: ARG003
        """Return the configuration of the encoder for this space, or None for RLlib's own."""
        return None

    @classmethod
    def _get_encoder_config(
        cls, observation_space: Space[Any], model_config_dict: dict[str, Any], action_space: Space[Any] | None = None
    ) -> ModelConfig:
        custom = cls.custom_encoder(observation_space, model_config_dict)
        return custom or super()._get_encoder_config(observation_space, model_config_dict, action_space)


def warn_without_custom_encoders() -> None:
    """Log a warning if the installed RLlib does not ask `CustomEncoderCatalog` for encoders."""
    if not hasattr(PPOCatalog, "_get_encoder_config"):
        _logger.warning("RLlib %s has no Catalog._get_encoder_config: images are not convolved.", ray.__version__)


def default_encoder(observation_space: Space[Any], model_config: dict[str, Any]) -> Encoder:
    """Return the encoder that RLlib builds for a space."""
    return PPOCatalog._get_encoder_config(observation_space, model_config).build("torch")


@contextlib.contextmanager
def free_log_stds_traceable(module: torch.nn.Module) -> Iterator[None]:
    """Replace the method of RLlib's `free_log_std` heads whose `len` of the batch would fix the graph's batch size.

    Without its effect, the comparison of the graph with the module in several batch sizes fails.
    """
    heads = [each for each in module.modules() if isinstance(each, TorchFreeLogStdMLPHead)]
    for head in heads:
        head._forward = functools.partial(_free_log_std, head)
    try:
        yield
    finally:
        for head in heads:
            del head._forward


def _free_log_std(head: TorchFreeLogStdMLPHead, inputs: torch.Tensor) -> torch.Tensor:
    mean = head.net(inputs)
    limit = head.log_std_clip_param_const if head.clip_log_std else math.inf
    return torch.cat([mean, head.log_std.clamp(-limit, limit).expand_as(mean)], dim=-1)


def freeze(observation_filter: MeanStdFilter) -> None:
    """Stop a filter that was restored from a checkpoint from learning from what it filters.

    Raises:
        RllibUnsupported: If the installed RLlib has another switch for it.
    """
    if not hasattr(observation_filter, "_update_stats"):
        raise RllibUnsupported(ray.__version__, "MeanStdFilter._update_stats")
    observation_filter._update_stats = False


def normalized(observation_filter: MeanStdFilter, observations: NDArray[Any]) -> NDArray[Any]:
    """Let a filter learn from a batch of observations, and return these normalized.

    RLlib's filter takes single observations. Statistics of the batch are merged into its own, as `RunningStat.update`
    describes, which gives the same mean and variance.
    """
    if observation_filter._filters is None:
        observation_filter.reset_state()
    each = observation_filter._filters[None]
    batch = RunningStat(observations.shape[1:])
    batch.num_pushes_delta = len(observations)
    batch.mean_delta_array = observations.mean(axis=0, dtype=np.float64)
    batch.sum_sq_diff_delta_array = ((observations - batch.mean_delta_array) ** 2).sum(axis=0)
    each.running_stats.update(batch)
    result: NDArray[Any] = each(observations, update=False)
    return result


def repeat_rows(shared_data: dict[str, Any], count: int) -> None:
    """Repeat the rows between RLlib's two connector pipelines: each row's episode occurs `count` times.

    The first pipeline passes the episode of each row to the second in `shared_data`.

    Raises:
        RllibUnsupported: If the installed RLlib passes it in another way.
    """
    key = "memorized_map_structure"
    if key not in shared_data:
        raise RllibUnsupported(ray.__version__, f"shared_data[{key!r}]")
    shared_data[key] = [episode for episode in shared_data[key] for _ in range(count)]


def _names_in(function: Any) -> tuple[str, ...]:
    """Return the names of the attributes and globals that a Python function uses."""
    return tuple(function.__code__.co_names)
