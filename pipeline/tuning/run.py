"""A hyperparameter search: runs trials, each a child run of one MLflow run, and registers the best policy."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlflow

from pipeline import signals
from pipeline.bundle import preflight
from pipeline.config import TrainConfig
from pipeline.environments import make as environments
from pipeline.environments.make import Environment
from pipeline.registry.registration import Registration, Trained
from pipeline.registry.signing import Signer
from pipeline.rllib.ray_session import RaySession
from pipeline.tracking import checkpoint_store, provenance
from pipeline.tracking import run as tracking
from pipeline.tracking.errors import NoCheckpoint
from pipeline.tracking.metric_queue import MetricQueue
from pipeline.training.evaluator import FINAL_SEED, Evaluator
from pipeline.training.worker_process import WorkerProcess
from pipeline.training.workspace import Workspace
from pipeline.tuning import ray_tune, trial_runs
from pipeline.tuning.errors import NothingFound
from pipeline.tuning.progress import TuningTable
from pipeline.tuning.search_space import SearchSpace
from pipeline.tuning.trial import TrialPlan
from pipeline.tuning.trial_runs import TrialRuns
from pipeline.tuning.trial_status import TrialState, TrialStatus, best
from serving.processes import available_cpus
from serving.registry.tracking import check_tracking_server

_NUM_TRIALS = "num_trials"


@dataclass(frozen=True)
class SearchLimits:
    """The resources that a search may use.

    Attributes:
        max_concurrent: Trials that run at once; 0 for as many as the CPUs allow that this process may use.
        time_budget_s: Seconds after which running trials end and no more start; None for no limit.
    """

    max_concurrent: int = 0
    time_budget_s: float | None = None

    def concurrency(self, config: TrainConfig) -> int:
        """Return how many trials of a configuration run at once."""
        return self.max_concurrent or max(1, available_cpus() // (1 + config.num_cpus))


@dataclass(frozen=True)
class Tuned:
    """The result of a search.

    Attributes:
        trained: The registered version.
        trial: The final status of the best trial.
        settings: The settings of the best trial, as `train --config` reads them.
    """

    trained: Trained
    trial: TrialStatus
    settings: Mapping[str, Any]


def tune(
    space: SearchSpace,
    num_trials: int,
    limits: SearchLimits,
    progress: TuningTable,
    ray: RaySession,
    *,
    signer: Signer | None = None,
) -> Tuned:
    """Start Ray, run the trials of a search, register the policy of the best one, and sign the version if asked to.

    Raises:
        NothingFound: If no trial was evaluated.
        EnvironmentNotFound, EnvKwargsRefused, UnsupportedSpace, ExportFailed: If the environment cannot be trained on.
        ArtifactsBehindServer: If the tracking URI names the database of an MLflow server that keeps the artifacts.
        TrackingServerUnreachable: If MLflow's server does not answer at the start.
        NotEnoughResources: If the machine has too few processors for a trial.
        Interrupted: On SIGINT and SIGTERM; nothing is registered.
    """
    check_tracking_server()
    environment = _environment(space)
    params = {**space.shared(), _NUM_TRIALS: num_trials}
    with tracking.run("tune", params) as run_id, Workspace.temporary() as workspace:
        tracking.log_settings(run_id, {**space.as_content(), _NUM_TRIALS: num_trials}, tracking.SEARCH_FILE)
        mlflow.set_tags(provenance.tags(environment))
        run = _TuningRun(space, num_trials, limits, environment, run_id, workspace, progress, ray, signer=signer)
        return run.tune()


def resume(
    run_id: str,
    limits: SearchLimits,
    progress: TuningTable,
    ray: RaySession,
    *,
    trust_checkpoint: bool = False,
    signer: Signer | None = None,
) -> Tuned:
    """Resume an unfinished search: keep the trials that ended, and continue the others from their newest checkpoints.

    Raises:
        NotResumable, CheckpointDigestMissing, CheckpointChanged: If the run cannot be resumed.
        Exception: As `tune`.
    """
    check_tracking_server()
    content = tracking.load(run_id, tracking.SEARCH_FILE)
    num_trials = int(content.pop(_NUM_TRIALS))
    space = SearchSpace.of(content)
    environment = _environment(space)
    with Workspace.temporary() as workspace, tracking.run("tune", resumed=run_id):
        parts = space, num_trials, limits, environment, run_id, workspace, progress, ray
        return _TuningRun(*parts, trust_checkpoint=trust_checkpoint, signer=signer).tune()


def _environment(space: SearchSpace) -> Environment:
    config = space.config(1)
    return environments.of_config(config)


@dataclass(frozen=True)
class _TuningRun:
    space: SearchSpace
    num_trials: int
    limits: SearchLimits
    environment: Environment
    run_id: str
    workspace: Workspace
    progress: TuningTable
    ray: RaySession
    trust_checkpoint: bool = False
    signer: Signer | None = None

    def tune(self) -> Tuned:
        try:
            return self._search_and_register()
        except NothingFound:  # all trials ended
            raise
        except BaseException:
            if signals.received() or tracking.children(self.run_id):
                self.progress.note(f"To resume: python -m pipeline tune --resume {self.run_id}")
            raise

    def _search_and_register(self) -> Tuned:
        numbers = range(1, self.num_trials + 1)
        statuses = [TrialStatus(number, self.space.searched(self.space.config(number))) for number in numbers]
        trial_runs.read(self.run_id, statuses)
        self.progress.trials(statuses)
        waiting = [each for each in statuses if not each.state.is_final]
        if waiting:
            self._start_ray(len(waiting))
            self._run_trials(statuses, waiting)
        self.ray.stop()
        best_trial = best(statuses)
        if best_trial is None:
            failed = sum(each.state == TrialState.FAILED for each in statuses)
            raise NothingFound(self.run_id, len(statuses), failed)
        return self._register(best_trial)

    @property
    def _concurrency(self) -> int:
        return self.limits.concurrency(self.space.config(1))

    def _start_ray(self, num_trials: int) -> None:
        """Start Ray, and export an untrained policy meanwhile."""
        self.progress.note(f"MLflow run {self.run_id}; starting Ray and trying the export")
        if self.environment.notice:
            self.progress.note(self.environment.notice)
        config = self.space.config(1)
        self.ray.start(config, min(self._concurrency, num_trials))
        preflight.export(config)
        self.ray.wait_until_ready()

    def _run_trials(self, statuses: Sequence[TrialStatus], waiting: Sequence[TrialStatus]) -> None:
        ended = f"; {len(statuses) - len(waiting)} ended before" if len(waiting) < len(statuses) else ""
        self.progress.note(
            f"Searching {', '.join(self.space.search)} on {self.environment.id}: "
            f"{len(waiting)} trials, {self._concurrency} at once{ended}"
        )
        plans = [self._plan(status) for status in waiting]
        runs = TrialRuns(self.run_id, statuses, plans, self.progress)
        limit = self.limits.time_budget_s
        deadline = float("inf") if limit is None else time.monotonic() + limit

        def should_stop() -> bool:
            return signals.received() is not None or time.monotonic() > deadline

        with signals.deferred():
            try:
                ray_tune.run(plans, self.workspace.root / "tune", self._concurrency, runs, should_stop)
            except BaseException:
                runs.end_remaining(TrialState.INTERRUPTED)
                raise
            signal_name = signals.received()
            if signal_name is None:
                runs.end_remaining(TrialState.OUT_OF_TIME)
            else:
                self.progress.note(f"{signal_name}: uploading the checkpoints of the running trials")
                runs.end_remaining(TrialState.INTERRUPTED)

    def _plan(self, status: TrialStatus) -> TrialPlan:
        workspace = Workspace.create(self.workspace.root / "trials" / str(status.number))
        resumes = False
        if status.run_id:
            try:
                checkpoint_store.restore_newest(status.run_id, workspace.bundle, trusted=self.trust_checkpoint)
                resumes = True
            except NoCheckpoint:
                self.progress.note(f"Trial {status.number} has no complete checkpoint, and starts again")
        return TrialPlan(status.number, self.space.config(status.number), workspace, resumes)

    def _register(self, best_trial: TrialStatus) -> Tuned:
        config, workspace = self.space.config(best_trial.number), self.workspace
        self.progress.note(f"Exporting and registering the policy of trial {best_trial.number}")
        settings = config.as_file()
        tracking.log_settings(self.run_id, settings, tracking.BEST_FILE)
        tracking.log_params(self.run_id, {**config.as_params(), "best_trial": best_trial.number})
        checkpoint_store.restore_newest(best_trial.run_id, workspace.bundle, trusted=self.trust_checkpoint)
        evaluator = Evaluator(config, self.environment, workspace, WorkerProcess())
        evaluator.export()
        policy = evaluator.evaluate_bundle(best_trial.best_step, FINAL_SEED)
        registration = Registration(
            config, self.environment, self.run_id, evaluator.target_return, self.progress.note, self.signer
        )
        with MetricQueue(self.run_id, self.progress.note, logs_system_metrics=False) as queue:
            recording = policy.recorded(workspace.recording, self.progress.note)
            registration.upload_figures(queue, policy.evaluation, recording)
        lineage = {
            "tune.run": self.run_id,
            "tune.trials": str(self.num_trials),
            "trial.run": best_trial.run_id,
            trial_runs.NUMBER_TAG: str(best_trial.number),
            trial_runs.SETTINGS_TAG: json.dumps(dict(best_trial.settings)),
        }
        signals.check()
        trained = registration.register(workspace.bundle, policy.evaluation, policy.step, lineage)
        return Tuned(trained, best_trial, settings)
