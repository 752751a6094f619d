"""Registering the best policy of a run: its pictures, its final evaluation, its version and card."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow

from pipeline.bundle import assemble as bundle
from pipeline.config import TrainConfig
from pipeline.environments.make import Environment
from pipeline.evaluation.evaluation import Evaluation
from pipeline.registry import model_card as card
from pipeline.tracking import figures, provenance
from pipeline.tracking import run as tracking
from pipeline.tracking.metric_queue import Outbox, patiently
from pipeline.training.loop import Found


@dataclass(frozen=True)
class Trained:
    """What a training run registered.

    Attributes:
        name: The registered model.
        version: Its new version.
        run_id: The MLflow run.
        evaluation: The final evaluation, of the bundle as it will be served.
        target_return: What was to be reached; None if nothing was.
        promote: Whether it is to be promoted.
    """

    name: str
    version: int
    run_id: str
    evaluation: Evaluation
    target_return: float | None
    promote: bool

    @property
    def solved(self) -> bool:
        """Whether the final evaluation reached the target."""
        return self.target_return is None or self.evaluation.mean >= self.target_return


@dataclass(frozen=True)
class Registration:
    """What is needed to register a policy.

    Attributes:
        config: How it was trained.
        environment: On what.
        run_id: In which MLflow run.
        directory: Its assembled bundle; what stands beside it may be written.
        target_return: What was to be reached; None if nothing was.
        say: Is told when the tracking server goes away and when it is back.
    """

    config: TrainConfig
    environment: Environment
    run_id: str
    directory: Path
    target_return: float | None
    say: Callable[[str], None]

    def post_pictures(self, outbox: Outbox, found: Found) -> None:
        """Send how the final returns are distributed, and a recording of an episode."""
        title = f"Final evaluation on {self.environment.id}: greedy returns of {len(found.evaluation.returns)} episodes"
        figure = figures.distribution(found.evaluation.returns, self.target_return, title)
        outbox.file("distribution", lambda: tracking.log_figure(self.run_id, figure, tracking.DISTRIBUTION))
        file = self.directory.parent / tracking.RECORDING
        if found.film.result():
            outbox.file("recording", lambda: mlflow.MlflowClient().log_artifact(self.run_id, str(file)))

    def register(self, found: Found, lineage: Mapping[str, str] | None = None) -> Trained:
        """Log the bundle and its evaluation, and make it a version.

        Args:
            found: The policy.
            lineage: Tags of the version that say where it comes from, beyond its run.
        """
        logged = bundle.log(self.directory, self.environment, self.run_id, found.step)
        final = found.evaluation
        patiently(lambda: tracking.log_evaluation(self.run_id, final, logged.model_id), self.say)
        made_with = provenance.of(self.environment)
        started_from = tracking.origin_of(self.run_id)
        tags = made_with | tracking.version_tags(final) | dict(lineage or {})
        if self.target_return is not None:
            tags["target_return"] = f"{self.target_return:g}"
        if started_from is not None:
            tags["from"] = started_from
        description = card.write(
            self.config,
            self.environment,
            final,
            made_with,
            run_id=self.run_id,
            best_step=found.step,
            target_return=self.target_return,
            origin=started_from,
        )
        name = self.config.registered_model_name
        version = bundle.register(logged, name, tags, description)
        return Trained(name, version, self.run_id, final, self.target_return, self.config.promote)
