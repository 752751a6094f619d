"""Registers the best policy of a run: uploads its figures and creates its version with evaluation and model card."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import mlflow

from pipeline.bundle import mlflow_flavor
from pipeline.bundle.checkpoint_files import digests
from pipeline.config import TrainConfig
from pipeline.environments.make import Environment
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.trend import Trend
from pipeline.registry import model_card
from pipeline.registry.signing import Signer, sign
from pipeline.tracking import figures, provenance
from pipeline.tracking import run as tracking
from pipeline.tracking.metric_queue import MetricQueue
from pipeline.tracking.outages import Result, retry_through_outages
from serving.integrity.statements import Subject
from serving.registry.tracking import bounded_retries


@dataclass(frozen=True)
class Trained:
    """The version that a training run registered.

    Attributes:
        name: The registered model.
        version: The number of the new version.
        run_id: The MLflow run.
        evaluation: The final evaluation, of the bundle that will be served.
        target_return: The mean return to reach, or None.
        promote: Whether the configuration asks for its promotion.
        best_step: Environment steps after which the policy was found.
        config: The settings of its training.
        trend: What the returns did by the end of its training, if known.
        is_from_experience: Whether it learned from recorded episodes.
    """

    name: str
    version: int
    run_id: str
    evaluation: Evaluation
    target_return: float | None
    promote: bool
    best_step: int = 0
    config: TrainConfig = field(default_factory=TrainConfig)
    trend: Trend | None = None
    is_from_experience: bool = False

    @property
    def solved(self) -> bool:
        """Whether the final evaluation reached the target."""
        return self.target_return is None or self.evaluation.mean >= self.target_return

    @property
    def was_improving(self) -> bool:
        """Whether more steps may find a better policy.

        The trend tells, or else whether the policy was found in the last quarter of the budget.
        """
        if self.trend is not None:
            return self.trend == Trend.RISING
        return self.best_step >= 0.75 * self.config.max_env_steps


@dataclass(frozen=True)
class Registration:
    """Registers a policy of one training run.

    Attributes:
        target_return: The mean return to reach, or None.
        notify: Receives a message when the tracking server becomes unreachable, and one when it responds again.
        signer: Signs the version if it is given.
        method: How the policy was trained, if not with PPO in the environment.
    """

    config: TrainConfig
    environment: Environment
    run_id: str
    target_return: float | None
    notify: Callable[[str], None]
    signer: Signer | None = None
    method: model_card.Method = field(default_factory=model_card.Method)

    def upload_figures(self, queue: MetricQueue, evaluation: Evaluation, recording: Path | None) -> None:
        """Enqueue the distribution of the final returns, and the recording of an episode if there is one."""
        title = f"Final evaluation on {self.environment.id}: greedy returns of {len(evaluation.returns)} episodes"
        figure = figures.distribution(evaluation.returns, self.target_return, title)
        queue.upload(
            "distribution", lambda: mlflow.MlflowClient().log_figure(self.run_id, figure, tracking.DISTRIBUTION)
        )
        if recording is not None:
            queue.upload("recording", lambda: mlflow.MlflowClient().log_artifact(self.run_id, str(recording)))

    def register(
        self, directory: Path, final: Evaluation, step: int, lineage: Mapping[str, str] | None = None
    ) -> Trained:
        """Log a bundle and its evaluation, and register it as a version.

        Args:
            directory: The assembled bundle.
            final: The final evaluation of the bundle.
            step: Environment steps after which the policy was found.
            lineage: Further tags of the version that name its origin.

        Raises:
            TrackingRefused: If MLflow, its artifact store, or a proxy before them refuses a part of it.
            TrackingFailed: If they fail for half an hour.
        """
        model_id = self._send(
            lambda: mlflow_flavor.log(directory, self.environment, self.run_id, step), "the files of the policy"
        )
        self._send(lambda: tracking.log_evaluation(self.run_id, final, model_id), "the final evaluation")
        made_with = provenance.tags(self.environment)
        started_from = self._send(lambda: tracking.origin_of(self.run_id), "a question")
        tags = made_with | tracking.version_tags(final) | dict(self.method.tags) | dict(lineage or {})
        if self.target_return is not None:
            tags["target_return"] = f"{self.target_return:g}"
        if started_from is not None:
            tags["from"] = started_from
        description = self._description(final, step, made_with["git_commit"], started_from)
        name = self.config.registered_model_name
        version = self._send(
            lambda: mlflow_flavor.register(directory, model_id, name, tags, description), f"a version of '{name}'"
        )
        if self.signer is not None:
            # The digests are those of the local files: what the registry holds may be of others.
            subject, signer = Subject(name, version, digests(directory)), self.signer
            self._send(lambda: sign(subject, signer), f"the signature of version {version}")
        facts = name, version, self.run_id, final, self.target_return, self.config.promote, step, self.config
        return Trained(*facts, is_from_experience=bool(self.method.learned_from))

    def _description(self, final: Evaluation, step: int, commit: str, origin: str | None) -> str:
        return model_card.write(
            self.config,
            self.environment,
            final,
            run_id=self.run_id,
            commit=commit,
            best_step=step,
            target_return=self.target_return,
            origin=origin,
            method=self.method,
        )

    def _send(self, send: Callable[[], Result], what: str) -> Result:
        with bounded_retries():  # MLflow's own retries would find a server that is back late
            return retry_through_outages(send, self.notify, what)
