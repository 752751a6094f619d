"""A training run, whole: search the best policy, prove its export, evaluate and register it."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow

from pipeline import bundle, card, checkpoints, environments, figures, origin, provenance, recording, tracking
from pipeline.config import TrainConfig
from pipeline.environments import Environment
from pipeline.evaluation import Evaluation
from pipeline.export_trial import ExportTrial
from pipeline.origin import Origin
from pipeline.outbox import Outbox, patiently
from pipeline.player import Player
from pipeline.ray_session import RaySession
from pipeline.search import Found, Progress, Search
from pipeline.training import Trainer
from serving.registry import check_tracking_server


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


def train(
    config: TrainConfig, progress: Progress, ray: RaySession, trial: ExportTrial, model_uri: str | None = None
) -> Trained:
    """Train, evaluate and register a policy in one MLflow run.

    Args:
        config: How to train.
        progress: Is told how far it is.
        ray: Has begun.
        trial: Has begun.
        model_uri: A registered policy whose weights training starts with.

    Raises:
        EnvironmentNotFound, UnsupportedSpace, CannotContinueFrom: If there is nothing to train on, or from.
        ExportFailed, ExportDiffers: If the policy cannot be served; nothing is registered then.
        TrackingServerUnreachable: If MLflow's server does not answer at the start.
        ClusterUnreachable, NotEnoughResources: If Ray is not there, or has too little to train on.
        Interrupted: On SIGINT and SIGTERM; nothing is registered then.
    """
    check_tracking_server()
    environment = environments.describe(config.env_id, config.environment_kwargs, config.wrappers)
    with tracking.run("train") as run_id, _workplace() as directory:
        tracking.log_params(run_id, config.as_params())
        tracking.log_config(config.as_params())
        tracking.log_provenance(run_id, provenance.of(environment))
        start = None
        if model_uri is not None:
            start = origin.find(model_uri, environment, directory.parent)
            tracking.log_origin(run_id, start.uri, start.model_id)
        return _Run(config, environment, run_id, directory, progress, ray, start).train(trial)


def resume(run_id: str, progress: Progress, ray: RaySession) -> Trained:
    """Go on with a run that did not finish, from its last checkpoint.

    Args:
        run_id: Of the MLflow run.
        progress: Is told how far it is.
        ray: Begins here, where its settings are known.

    Raises:
        NotResumable, NoCheckpoint: If it cannot be gone on with.
        As `train`.
    """
    check_tracking_server()
    config = TrainConfig.of(tracking.load_config(run_id))
    ray.begin(config)
    environment = environments.describe(config.env_id, config.environment_kwargs, config.wrappers)
    with _workplace() as directory:
        checkpoints.newest(run_id, directory)
        with tracking.run("train", resumed=run_id):
            return _Run(config, environment, run_id, directory, progress, ray, None).train()


@contextlib.contextmanager
def _workplace() -> Iterator[Path]:
    """An empty directory for the bundle, in a temporary one for what stands beside it."""
    with tempfile.TemporaryDirectory(prefix="cartpole-ppo-") as parent:
        directory = Path(parent, "bundle")
        directory.mkdir()
        yield directory


@dataclass(frozen=True)
class _Run:
    config: TrainConfig
    environment: Environment
    run_id: str
    directory: Path
    progress: Progress
    ray: RaySession
    start: Origin | None

    def train(self, trial: ExportTrial | None = None) -> Trained:
        self.progress.stage(f"MLflow run {self.run_id}; trying the export")
        if trial is not None:
            trial.await_success()
        self.ray.await_ready()
        with Outbox(self.run_id, self.progress.note) as outbox:
            with Trainer(self.config, self.environment) as trainer:
                if self.start is not None:
                    self.start.hand_over(trainer)
                search = Search(self.config, self.environment, trainer, outbox, self.directory, self.progress)
                begun = time.monotonic()
                found = search.best()
                share = outbox.busy_s / (time.monotonic() - begun)
            self.ray.begin_to_stop()
            self.progress.stage(
                f"Registering the policy; sending metrics to MLflow took {share:.1%} of the time so far"
            )
            self._post_pictures(outbox, found, search.target_return)
        return self._register(found, search.target_return)

    def _post_pictures(self, outbox: Outbox, found: Found, target_return: float | None) -> None:
        title = f"Final evaluation on {self.environment.id}: greedy returns of {len(found.evaluation.returns)} episodes"
        figure = figures.distribution(found.evaluation.returns, target_return, title)
        outbox.file("distribution", lambda: tracking.log_figure(self.run_id, figure, tracking.DISTRIBUTION))
        file = self.directory.parent / tracking.RECORDING
        if recording.record(Player.served(found.policy), self.environment, found.evaluation.first_seed, file):
            outbox.file("recording", lambda: mlflow.MlflowClient().log_artifact(self.run_id, str(file)))

    def _register(self, found: Found, target_return: float | None) -> Trained:
        logged = bundle.log(self.directory, self.environment, self.run_id, found.step)
        final = found.evaluation
        patiently(lambda: tracking.log_evaluation(self.run_id, final, logged.model_id), self.progress.note)
        made_with = provenance.of(self.environment)
        tags = made_with | tracking.version_tags(final)
        if target_return is not None:
            tags["target_return"] = f"{target_return:g}"
        started_from = tracking.origin_of(self.run_id)
        if started_from is not None:
            tags["from"] = started_from
        description = card.write(
            self.config,
            self.environment,
            final,
            made_with,
            run_id=self.run_id,
            best_step=found.step,
            target_return=target_return,
            origin=started_from,
        )
        version = bundle.register(logged, self.config.registered_model_name, tags, description)
        name = self.config.registered_model_name
        return Trained(name, version, self.run_id, final, target_return, self.config.promote)
