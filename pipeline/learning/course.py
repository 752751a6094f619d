"""What a training run trains with if it learns from recorded experience."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self

import mlflow
import yaml
from mlflow.exceptions import MlflowException

from pipeline.config import TrainConfig
from pipeline.environments.action_adapters import to_policy
from pipeline.environments.make import Environment
from pipeline.environments.nested_spaces import nest
from pipeline.experience.dataset import DIGEST_TAG, VERSIONS_TAG, log_experience
from pipeline.experience.exports.episodes import Episode
from pipeline.learning.errors import ExperienceOutdated
from pipeline.learning.loop import LearningLoop, steps_before_ppo
from pipeline.learning.recorded import Facts, Recorded
from pipeline.learning.settings import PPO, LearningSettings
from pipeline.registry.model_card import Method
from pipeline.rllib.offline.learner import OfflineSettings, RecordedEpisode
from pipeline.rllib.offline.trainer import OfflineTrainer
from pipeline.rllib.trainer import Trainer
from pipeline.tracking import run as tracking
from pipeline.tracking.errors import NotResumable
from pipeline.training.errors import CannotContinueFrom
from pipeline.training.run import Course, Parts
from pipeline.training.warm_start import InitialPolicy
from pipeline.training.workspace import Workspace
from serving.errors import redacted

#: The artifact of a run with the settings of learning, and the facts of the episodes.
_FILE = "learning.yaml"

#: The tag of a run and of its version with the algorithm.
_ALGORITHM_TAG = "algorithm"


class LearningCourse(Course):
    """Learns from recorded episodes, and with PPO afterwards if the settings say so.

    Args:
        settings: The settings of learning.
        facts: What is known of the episodes.
        recorded: The episodes; None to read them when they are needed.
    """

    def __init__(self, settings: LearningSettings, facts: Facts, recorded: Recorded | None = None) -> None:
        self._settings, self._facts, self._recorded = settings, facts, recorded

    @classmethod
    def of_run(cls, run_id: str) -> Self | None:
        """Return the course of an unfinished run, or None if it does not learn from experience. Raises NotResumable."""
        run = mlflow.get_run(run_id)
        if _ALGORITHM_TAG not in run.data.tags:
            return None
        try:
            content = yaml.safe_load(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{_FILE}"))
        except (MlflowException, OSError) as error:
            raise NotResumable(run_id, f"its {_FILE} cannot be read.") from error
        return cls(LearningSettings.of(content["settings"]), Facts(**content["facts"]))

    @property
    def params(self) -> Mapping[str, Any]:
        """The settings of learning."""
        return self._settings.as_params()

    @property
    def method(self) -> Method:
        """The algorithms and the experience, for the model card and the tags of the version."""
        facts = self._facts
        then = ", then by PPO in the environment" if self._settings.then == PPO else ""
        learned_from = f"on {facts} of `{facts.model}`, mean return {facts.return_mean:.1f}, digest `{facts.digest}`"
        return Method(self._settings.title, f"{learned_from}{then}", self._tags)

    @property
    def _tags(self) -> dict[str, str]:
        algorithm = "+".join([self._settings.algorithm, *([PPO] if self._settings.then == PPO else [])])
        return {DIGEST_TAG: self._facts.digest, VERSIONS_TAG: self._facts.versions, _ALGORITHM_TAG: algorithm}

    def begin(self, run_id: str) -> None:
        """Log the settings, and the episodes as an input of the run."""
        facts = self._facts
        content = {"settings": self._settings.as_params(), "facts": asdict(facts)}
        tracking.log_settings(run_id, content, _FILE)
        log_experience(run_id, self._required().whole)
        mlflow.set_tags(self._tags)
        figures = {"episodes": facts.episodes, "steps": facts.steps, "return_mean": facts.return_mean}
        mlflow.log_metrics({f"experience/{name}": value for name, value in figures.items()})

    def trainer(self, config: TrainConfig, environment: Environment, workspace: Workspace) -> Trainer:
        """Return a trainer with the episodes, unless a checkpoint in the workspace has learned from them.

        Raises:
            ExperienceOutdated: If other episodes are at the URI by now.
            Exception: As `Recorded.read`.
        """
        episodes: Sequence[RecordedEpisode] = ()
        if steps_before_ppo(workspace) is None:
            recorded = self._recorded or self._read_again(environment)
            episodes = [as_learned(each, environment) for each in recorded.episodes]
        settings = OfflineSettings(self._settings.weight_of_advantages, self._settings.offline_lr)
        return OfflineTrainer(config, environment, episodes, settings, workspace.bundle / "offline_learner.pkl")

    def load(self, initial: InitialPolicy, trainer: Trainer) -> None:
        """Load weights and filter of a registered policy. Raises CannotContinueFrom."""
        assert isinstance(trainer, OfflineTrainer)  # noqa: S101  # `trainer` made it
        has_filter = trainer.load_filter(initial.checkpoint)
        if has_filter != trainer.is_filtered:
            reason = "one of the two policies filters observations, and the other does not. Omit --observation-filter."
            raise CannotContinueFrom(initial.uri, reason)
        initial.load_weights_into(trainer)

    def loop(self, parts: Parts) -> LearningLoop:
        """Return the loop over the phases."""
        assert isinstance(parts.trainer, OfflineTrainer)  # noqa: S101  # as above
        return LearningLoop(parts, parts.trainer, self._settings, self._facts.steps)

    def _required(self) -> Recorded:
        assert self._recorded is not None  # noqa: S101  # a new run has read them
        return self._recorded

    def _read_again(self, environment: Environment, note: Callable[[str], object] = lambda _: None) -> Recorded:
        recorded = Recorded.read(self._settings, environment, note)
        if recorded.facts != self._facts:
            uri = redacted(self._settings.experience)
            raise ExperienceOutdated(uri, self._facts.digest, recorded.facts.digest)
        return recorded


def course_of(
    resumed: str | None, settings: LearningSettings | None, recorded: Recorded | None
) -> LearningCourse | None:
    """Return the course of a run that is resumed, or of a new one with these episodes; None without experience."""
    if resumed is not None:
        return LearningCourse.of_run(resumed)
    if settings is None or recorded is None:
        return None
    return LearningCourse(settings, recorded.facts, recorded)


def as_learned(episode: Episode, environment: Environment) -> RecordedEpisode:
    """Return a recorded episode with the policy's own actions, and values nested as their spaces."""
    actions = to_policy(environment.action_space, episode.actions)
    return RecordedEpisode(
        observations=nest(environment.observation_space, episode.all_observations),
        actions=nest(environment.trained_action_space, actions),
        rewards=episode.rewards,
        terminated=episode.terminated,
    )
