"""A training run, whole: search the best policy, prove its export, evaluate and register it."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.bundle import preflight as export_trial
from pipeline.config import TrainConfig
from pipeline.environments import make as environments
from pipeline.environments.make import Environment
from pipeline.registry.registration import Registration, Trained
from pipeline.rllib.ray_session import RaySession
from pipeline.rllib.trainer import Trainer
from pipeline.tracking import checkpoint_store as checkpoints
from pipeline.tracking import provenance
from pipeline.tracking import run as tracking
from pipeline.tracking.metric_queue import Outbox
from pipeline.training import warm_start as origin
from pipeline.training.loop import Progress, Search
from pipeline.training.worker_process import Call, SideProcess
from pipeline.training.warm_start import Origin
from serving.registry.tracking import check_tracking_server


def train(
    config: TrainConfig, progress: Progress, ray: RaySession, side: SideProcess, model_uri: str | None = None
) -> Trained:
    """Train, evaluate and register a policy in one MLflow run.

    Args:
        config: How to train.
        progress: Is told how far it is.
        ray: Has begun.
        side: Has begun.
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
    with tracking.run("train") as run_id, workplace() as directory:
        tracking.log_params(run_id, config.as_params())
        tracking.log_config(config.as_params())
        tracking.log_provenance(run_id, provenance.of(environment))
        start = None
        if model_uri is not None:
            start = origin.find(model_uri, environment, directory.parent)
            tracking.log_origin(run_id, start.uri, start.model_id)
        return _Run(config, environment, run_id, directory, progress, ray, side, start).train()


def resume(run_id: str, progress: Progress, ray: RaySession, side: SideProcess) -> Trained:
    """Go on with a run that did not finish, from its last checkpoint.

    Args:
        run_id: Of the MLflow run.
        progress: Is told how far it is.
        ray: Begins here, where its settings are known.
        side: As `ray`.

    Raises:
        NotResumable, NoCheckpoint: If it cannot be gone on with.
        As `train`.
    """
    check_tracking_server()
    config = TrainConfig.of(tracking.load_config(run_id))
    ray.begin(config)
    side.begin(config)
    environment = environments.describe(config.env_id, config.environment_kwargs, config.wrappers)
    with workplace() as directory:
        checkpoints.newest(run_id, directory)
        with tracking.run("train", resumed=run_id):
            return _Run(config, environment, run_id, directory, progress, ray, side, None).go_on()


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
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
    side: SideProcess
    start: Origin | None

    def train(self) -> Trained:
        self.progress.stage(f"MLflow run {self.run_id}; trying the export")
        export_trial.check(self.config)
        trial = self.side.call(export_trial.attempt, self.config)
        if trial.is_answered:
            trial.result()
        return self._search(trial)

    def go_on(self) -> Trained:
        """As `train`; the export was tried when the run began."""
        self.progress.stage(f"MLflow run {self.run_id}; going on")
        return self._search()

    def _search(self, trial: Call | None = None) -> Trained:
        self.ray.await_ready()
        with Outbox(self.run_id, self.progress.note) as outbox:
            with Trainer(self.config, self.environment) as trainer:
                if self.start is not None:
                    self.start.hand_over(trainer)
                search = Search(
                    self.config, self.environment, trainer, outbox, self.directory, self.progress, self.side, trial
                )
                begun = time.monotonic()
                found = search.best()
                share = outbox.busy_s / (time.monotonic() - begun)
            self.ray.begin_to_stop()
            self.progress.stage(
                f"Registering the policy; sending metrics to MLflow took {share:.1%} of the time so far"
            )
            registration = Registration(
                self.config, self.environment, self.run_id, self.directory, search.target_return, self.progress.note
            )
            registration.post_pictures(outbox, found)
        return registration.register(found)
