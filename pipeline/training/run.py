"""A training run: trains a policy, exports it, evaluates it, and registers it."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import mlflow

from pipeline import signals
from pipeline.bundle import preflight
from pipeline.config import TrainConfig
from pipeline.environments import contract
from pipeline.environments.make import Environment
from pipeline.evaluation.trend import Trend
from pipeline.registry.model_card import Method
from pipeline.registry.registration import Registration, Trained
from pipeline.registry.signing import Signer
from pipeline.rllib.ray_session import RaySession
from pipeline.rllib.trainer import Trainer
from pipeline.tracking import checkpoint_store, provenance
from pipeline.tracking import run as tracking
from pipeline.tracking.metric_queue import MetricQueue
from pipeline.training import warm_start
from pipeline.training.evaluator import BestPolicy, Evaluator
from pipeline.training.loop import Loop
from pipeline.training.progress import TrainingProgress
from pipeline.training.warm_start import InitialPolicy
from pipeline.training.worker_process import WorkerProcess
from pipeline.training.workspace import Workspace
from serving.registry.tracking import check_tracking_server


class Course:
    """What a training run trains with: PPO in the environment. Subclasses learn from something else as well."""

    @property
    def params(self) -> Mapping[str, Any]:
        """Parameters of the run besides those of the configuration."""
        return {}

    @property
    def method(self) -> Method:
        """What the model card and the tags of the version say about it."""
        return Method()

    def begin(self, run_id: str) -> None:
        """Log in a new run what else it needs to be resumed, and what it learns from."""

    def trainer(self, config: TrainConfig, environment: Environment, workspace: Workspace) -> Trainer:  # noqa: ARG002
        """Return the trainer."""
        return Trainer(config, environment)

    def load(self, initial: InitialPolicy, trainer: Trainer) -> None:
        """Load a registered policy into the trainer. Raises CannotContinueFrom."""
        initial.load_into(trainer)

    def loop(self, parts: "Parts") -> "Training":
        """Return the loop that finds the best policy."""
        return Loop(parts.config, parts.trainer, parts.evaluator, parts.log, parts.workspace, parts.progress)


class Training(Protocol):
    """Finds the best policy of a training, as `Loop` does."""

    @property
    def trend(self) -> Trend:
        """What the returns have done by now."""

    def resume(self) -> None:
        """Continue from the checkpoint in the workspace."""

    def run(self) -> BestPolicy:
        """Train, and return the best policy, whose bundle is in the workspace."""


@dataclass(frozen=True)
class Parts:
    """What a loop works with; see `Loop`."""

    config: TrainConfig
    trainer: Trainer
    evaluator: Evaluator
    log: MetricQueue
    workspace: Workspace
    progress: TrainingProgress


def train(
    config: TrainConfig,
    progress: TrainingProgress,
    ray: RaySession,
    worker: WorkerProcess,
    model_uri: str | None = None,
    environment: Environment | None = None,
    *,
    trust_checkpoint: bool = False,
    signer: Signer | None = None,
    course: Course | None = None,
) -> Trained:
    """Train, evaluate and register a policy in one MLflow run.

    The caller has started Ray and the worker process. `model_uri` is that of a registered policy whose weights training
    starts with. `environment` is what `contract.described` returned, if it was called before. With `trust_checkpoint`,
    that policy needs no digest of its checkpoint. `signer` signs the registered version. `course` is what to train
    with, if not PPO in the environment.

    Raises:
        EnvironmentNotFound, UnsupportedSpace, EnvironmentMisbehaved, EnvironmentExclusive: If the environment cannot be
            trained on.
        CannotContinueFrom: If the registered policy does not fit.
        ExportFailed, ExportDiffers: If the policy cannot be served; nothing is registered.
        ArtifactsBehindServer: If the tracking URI names the database of an MLflow server that keeps the artifacts.
        TrackingServerUnreachable: If MLflow's server does not answer at the start.
        ClusterUnreachable, NotEnoughResources: If Ray cannot be joined, or has too few processors.
        Interrupted: On SIGINT and SIGTERM; nothing is registered.
    """
    check_tracking_server()
    course = course or Course()
    environment = environment or contract.described(config, progress.note)
    with tracking.run("train", config.as_params() | dict(course.params)) as run_id, Workspace.temporary() as workspace:
        tracking.log_settings(run_id, config.as_params(), tracking.CONFIG_FILE)
        mlflow.set_tags(provenance.tags(environment))
        course.begin(run_id)
        initial = None
        if model_uri is not None:
            initial = warm_start.download(model_uri, environment, workspace.root, trust_checkpoint=trust_checkpoint)
            tracking.log_origin(run_id, initial.uri, initial.model_id)
        return _Run(config, environment, run_id, workspace, progress, ray, worker, signer, course).start(initial)


def resume(
    run_id: str,
    progress: TrainingProgress,
    ray: RaySession,
    worker: WorkerProcess,
    *,
    trust_checkpoint: bool = False,
    signer: Signer | None = None,
    course: Course | None = None,
) -> Trained:
    """Start Ray and the worker process with the settings of an unfinished run, and resume its newest checkpoint.

    Raises:
        NotResumable, NoCheckpoint, CheckpointDigestMissing, CheckpointChanged: If the run cannot be resumed.
        Exception: As `train`.
    """
    check_tracking_server()
    config = TrainConfig.of(tracking.load(run_id, tracking.CONFIG_FILE))
    environment = contract.described(config, progress.note)
    ray.start(config)
    if not environment.is_exclusive:
        worker.start(config)
    with Workspace.temporary() as workspace:
        checkpoint_store.restore_newest(run_id, workspace.bundle, trusted=trust_checkpoint)
        with tracking.run("train", resumed=run_id):
            parts = config, environment, run_id, workspace, progress, ray, worker, signer
            return _Run(*parts, course or Course()).resume()


@dataclass(frozen=True)
class _Run:
    config: TrainConfig
    environment: Environment
    run_id: str
    workspace: Workspace
    progress: TrainingProgress
    ray: RaySession
    worker: WorkerProcess
    signer: Signer | None
    course: Course

    def start(self, initial: InitialPolicy | None) -> Trained:
        self.progress.stage(f"MLflow run {self.run_id}; trying the export")
        preflight.check(self.config)
        with self._resumable():
            return self._train_and_register(self.worker.submit(preflight.export, self.config), initial)

    def resume(self) -> Trained:
        self.progress.stage(f"MLflow run {self.run_id}; resuming")
        with self._resumable(is_resumed=True):
            return self._train_and_register(resumes=True)

    def _train_and_register(
        self, pending: Future[Any] | None = None, initial: InitialPolicy | None = None, *, resumes: bool = False
    ) -> Trained:
        evaluator = Evaluator(self.config, self.environment, self.workspace, self.worker, pending)
        evaluator.check_preflight()
        if self.environment.notice:
            self.progress.note(self.environment.notice)
        target_return = evaluator.target_return
        facts = self.config, self.environment, self.run_id, target_return, self.progress.note, self.signer
        registration = Registration(*facts, self.course.method)
        self.ray.wait_until_ready()
        with MetricQueue(self.run_id, self.progress.note) as queue:
            with self.course.trainer(self.config, self.environment, self.workspace) as trainer:
                if self.environment.is_exclusive:
                    evaluator.released = trainer.released
                if initial is not None:
                    self.course.load(initial, trainer)
                parts = Parts(self.config, trainer, evaluator, queue, self.workspace, self.progress)
                loop = self.course.loop(parts)
                if resumes:
                    loop.resume()
                best, trend = self._timed(loop, queue), loop.trend
            self.ray.stop()
            recording = best.recorded(self.workspace.recording, self.progress.note)
            registration.upload_figures(queue, best.evaluation, recording)
        signals.check()
        trained = registration.register(self.workspace.bundle, best.evaluation, best.step)
        return dataclasses.replace(trained, trend=trend)

    def _timed(self, loop: Training, queue: MetricQueue) -> BestPolicy:
        begun = time.monotonic()
        best = loop.run()
        share = queue.cpu_s / (time.monotonic() - begun)
        self.progress.stage(f"Registering the policy; sending metrics to MLflow took {share:.1%} of the time so far")
        return best

    @contextlib.contextmanager
    def _resumable(self, *, is_resumed: bool = False) -> Iterator[None]:
        """After an exception in any phase, show where the newest checkpoint is, and how to resume.

        The metric queue has tried to upload it by then; if it did not arrive, it is kept in the working directory.
        """
        try:
            yield
        except BaseException:
            archive = self.workspace.archive
            if archive.exists():
                self.progress.note(f"The newest checkpoint, {checkpoint_store.secure(self.run_id, archive)}")
            if archive.exists() or is_resumed:
                self.progress.note(f"To resume: python -m pipeline train --resume {self.run_id}")
            raise
