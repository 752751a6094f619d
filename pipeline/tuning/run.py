"""A search over settings, whole: trials side by side, each a run below one run, and the best one registered."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import mlflow

from pipeline import signals as interruption
from pipeline.bundle import assemble as bundle
from pipeline.bundle import preflight as export_trial
from pipeline.config import TrainConfig
from pipeline.environments import make as environments
from pipeline.environments.make import Environment
from pipeline.registry.registration import Registration, Trained
from pipeline.rllib.ray_session import RaySession
from pipeline.tracking import checkpoint_store as checkpoints
from pipeline.tracking import provenance
from pipeline.tracking import run as tracking
from pipeline.tracking.errors import NoCheckpoint
from pipeline.tracking.metric_queue import Outbox
from pipeline.training.loop import FINAL_SEED, examine
from pipeline.training.run import workplace
from pipeline.training.worker_process import SideProcess
from pipeline.tuning import ray_tune as tuning
from pipeline.tuning import trial_runs as trial_book
from pipeline.tuning.errors import NothingFound
from pipeline.tuning.ray_tune import Plan
from pipeline.tuning.search_space import SearchSpace, changed
from pipeline.tuning.trial_runs import TrialBook
from pipeline.tuning.trial_status import Standing, TrialState, best
from serving.registry.tracking import check_tracking_server

_NUM_TRIALS = "num_trials"


class TuningProgress(Protocol):
    """What a person sees while a search goes on."""

    def trials(self, standings: Sequence[Standing]) -> None:
        """There are these trials; they change."""

    def stage(self, message: str) -> None:
        """A new stage begins."""

    def note(self, message: str) -> None:
        """Something happened within a stage."""

    def changed(self, standing: Standing) -> None:
        """A trial stands elsewhere now."""


@dataclass(frozen=True)
class Limits:
    """What this machine gives a search.

    Attributes:
        max_concurrent: Trials at once; 0 for one per core.
        time_budget_s: Seconds after which running trials end where they are, and no more begin; None for no limit.
    """

    max_concurrent: int = 0
    time_budget_s: float | None = None

    def at_once(self, config: TrainConfig) -> int:
        """Trials at once, each of so many processes as the configuration says."""
        return self.max_concurrent or max(1, (os.cpu_count() or 1) // (1 + config.num_cpus))


@dataclass(frozen=True)
class Tuned:
    """The best trial and its registered policy.

    Attributes:
        trained: The version.
        trial: Where the trial ended.
        settings: Those that differ from the defaults, as a file for `train --config` has them.
    """

    trained: Trained
    trial: Standing
    settings: Mapping[str, Any]


def tune(space: SearchSpace, num_trials: int, limits: Limits, progress: TuningProgress, ray: RaySession) -> Tuned:
    """Run trials below one MLflow run, and register the policy of the best.

    Args:
        space: What trials draw from.
        num_trials: How many there are.
        limits: How many at once, and for how long.
        progress: Is told how far it is.
        ray: Begins here.

    Raises:
        NothingFound: If no trial was evaluated.
        EnvironmentNotFound, EnvKwargsRefused, UnsupportedSpace, ExportFailed: If there is nothing to train on.
        TrackingServerUnreachable: If MLflow's server does not answer at the start.
        NotEnoughResources: If the machine has too little for a trial.
        Interrupted: On SIGINT and SIGTERM; nothing is registered then.
    """
    check_tracking_server()
    base = space.config(1)
    environment = environments.describe(base.env_id, base.environment_kwargs, base.wrappers)
    with tracking.run("tune") as run_id, workplace() as directory:
        tracking.log_search({**space.as_content(), _NUM_TRIALS: num_trials})
        shared = {name: value for name, value in base.as_params().items() if name not in space.search}
        tracking.log_params(run_id, {**shared, _NUM_TRIALS: num_trials})
        tracking.log_provenance(run_id, provenance.of(environment))
        return _TuningRun(space, num_trials, limits, environment, run_id, directory, progress, ray).tune()


def resume(run_id: str, limits: Limits, progress: TuningProgress, ray: RaySession) -> Tuned:
    """Go on with a search that did not finish: trials that ended stay, others go on from their last checkpoints.

    Args:
        run_id: Of the parent run.
        limits: How many at once, and for how long.
        progress: Is told how far it is.
        ray: Begins here.

    Raises:
        NotResumable: If it cannot be gone on with.
        As `tune`.
    """
    check_tracking_server()
    content = tracking.load_search(run_id)
    num_trials = int(content.pop(_NUM_TRIALS))
    space = SearchSpace.of(content)
    base = space.config(1)
    environment = environments.describe(base.env_id, base.environment_kwargs, base.wrappers)
    with workplace() as directory, tracking.run("tune", resumed=run_id):
        return _TuningRun(space, num_trials, limits, environment, run_id, directory, progress, ray).tune()


@dataclass(frozen=True)
class _TuningRun:
    space: SearchSpace
    num_trials: int
    limits: Limits
    environment: Environment
    run_id: str
    directory: Path
    progress: TuningProgress
    ray: RaySession

    def tune(self) -> Tuned:
        base = self.space.config(1)
        numbers = range(1, self.num_trials + 1)
        standings = [Standing(number, self.space.drawn(self.space.config(number))) for number in numbers]
        trial_book.read(self.run_id, standings)
        self.progress.trials(standings)
        waiting = [each for each in standings if not each.state.is_final]
        if waiting:
            self.progress.stage(f"MLflow run {self.run_id}; starting Ray and trying the export")
            self.ray.begin(base, min(self._at_once, len(waiting)))
            export_trial.attempt(base)
            self.ray.await_ready()
            self._run_trials(standings, waiting)
        self.ray.begin_to_stop()
        found = best(standings)
        if found is None:
            failed = sum(each.state == TrialState.FAILED for each in standings)
            raise NothingFound(self.run_id, len(standings), failed)
        return self._register(found)

    @property
    def _at_once(self) -> int:
        return self.limits.at_once(self.space.config(1))

    def _run_trials(self, standings: Sequence[Standing], waiting: Sequence[Standing]) -> None:
        ended = f"; {len(standings) - len(waiting)} ended before" if len(waiting) < len(standings) else ""
        self.progress.stage(
            f"Searching {', '.join(self.space.search)} on {self.environment.id}: "
            f"{len(waiting)} trials, {self._at_once} at once{ended}"
        )
        plans = [self._plan(standing) for standing in waiting]
        book = TrialBook(self.run_id, standings, plans, self.progress.note, self.progress.changed)
        limit = self.limits.time_budget_s
        deadline = float("inf") if limit is None else time.monotonic() + limit
        with interruption.deferred() as pending:
            tuning.run(
                plans,
                self.directory.parent / "tune",
                self._at_once,
                book,
                lambda: pending.signal_name is not None or time.monotonic() > deadline,
            )
            if pending.signal_name is None:
                book.end_the_rest(TrialState.OUT_OF_TIME)
            else:
                self.progress.stage(f"{pending.signal_name}: uploading the checkpoints of the running trials")
                book.end_the_rest(TrialState.INTERRUPTED)
                self.progress.note(f"To go on: python -m pipeline tune --resume {self.run_id}")

    def _plan(self, standing: Standing) -> Plan:
        directory = self.directory.parent / "trials" / str(standing.number)
        directory.mkdir(parents=True)
        if standing.run_id is not None:
            try:
                checkpoints.newest(standing.run_id, directory)
            except NoCheckpoint:
                self.progress.note(f"Trial {standing.number} had no whole checkpoint yet, and begins anew")
        return Plan(standing.number, self.space.config(standing.number), directory)

    def _register(self, found: Standing) -> Tuned:
        assert found.run_id is not None  # noqa: S101  # it was evaluated
        config = self.space.config(found.number)
        self.progress.stage(f"Registering the policy of trial {found.number}, after proving its export")
        settings = changed(config)
        mlflow.log_dict(settings, tracking.BEST_FILE)
        tracking.log_params(self.run_id, {**config.as_params(), "best_trial": found.number})
        checkpoints.newest(found.run_id, self.directory)
        bundle.assemble(self.directory, self.environment, config.value_estimates)
        target = self.environment.reward_threshold if config.target_return is None else config.target_return
        registration = Registration(config, self.environment, self.run_id, self.directory, target, self.progress.note)
        episodes = config.evaluation_episodes
        best_policy = examine(self.directory, self.environment, episodes, FINAL_SEED, found.best_step, SideProcess())
        with Outbox(self.run_id, self.progress.note, samples_system=False) as outbox:
            registration.post_pictures(outbox, best_policy)
        lineage = {
            "tune.run": self.run_id,
            "tune.trials": str(self.num_trials),
            "trial.run": found.run_id,
            trial_book.NUMBER_TAG: str(found.number),
            trial_book.SETTINGS_TAG: json.dumps(dict(found.settings)),
        }
        return Tuned(registration.register(best_policy, lineage), found, settings)
