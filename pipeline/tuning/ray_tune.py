"""Ray Tune, and nothing else: plans of trials become processes, and what they report goes to a listener."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune.schedulers import ASHAScheduler

from pipeline.config import TrainConfig
from pipeline.tuning.trial import ENV_STEPS, GREEDY_RETURN, REPORT, PolicyTrial

#: Of the trials that reach a rung the best third goes on, and the first rung is a ninth of the budget.
_REDUCTION_FACTOR = 3
_FIRST_RUNG = 1 / 9


@dataclass(frozen=True)
class Plan:
    """A trial that is to be run.

    Attributes:
        number: Of the trial.
        config: How it trains.
        directory: Where it keeps its policies; it goes on from a checkpoint that is there.
    """

    number: int
    config: TrainConfig
    directory: Path


@dataclass(frozen=True)
class Report:
    """How far a trial is after an evaluation.

    Attributes:
        env_steps: Environment steps since it began.
        best_mean: The best mean greedy return so far.
        best_step: Environment steps at which that was.
        best_perfect: Whether it reached the target with all returns equal.
        is_over: Whether it ended by itself.
        metrics: What it logged since the last report: time in milliseconds, environment steps, metrics.
    """

    env_steps: int
    best_mean: float
    best_step: int
    best_perfect: bool
    is_over: bool
    metrics: Sequence[tuple[int, int, Mapping[str, float]]]


class Listener(Protocol):
    """Is told, in the process that searches, what trials do."""

    def started(self, number: int) -> None:
        """A trial has a process."""

    def reported(self, number: int, report: Report) -> None:
        """A trial was evaluated."""

    def ended(self, number: int, *, is_over: bool) -> None:
        """A trial ended, by itself or because others are better."""

    def failed(self, number: int, reason: str) -> None:
        """A trial ended with an error."""


def run(plans: Sequence[Plan], directory: Path, at_once: int, listener: Listener, stops: Callable[[], bool]) -> None:
    """Run trials side by side until all have ended, or it is to stop.

    Args:
        plans: Of the trials; their budgets and intervals are the same.
        directory: For Tune's own files.
        at_once: How many trials go on side by side.
        listener: Is told.
        stops: Whether it is to stop; asked several times a second.
    """
    os.environ |= {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # MLflow has it all
        "RAY_AIR_NEW_OUTPUT": "0",  # which prints even if told to be silent
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # signals are ours
        "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # what Tune would resume from; MLflow has that too
        "RAY_CHDIR_TO_TRIAL_DIR": "0",  # an environment of `module:Id` is looked for where the command runs
    }
    for name in ("ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    config = plans[0].config
    tune.run(
        PolicyTrial,
        name="trials",
        config={"trial": tune.grid_search([_told(plan) for plan in plans])},
        resources_per_trial=_resources(config),
        scheduler=_scheduler(config),
        stop=_Stopper(stops),
        callbacks=[_Teller(listener)],
        max_concurrent_trials=at_once,
        reuse_actors=True,
        raise_on_failed_trial=False,
        storage_path=str(directory),
        verbose=0,
    )


def _told(plan: Plan) -> dict[str, Any]:
    return {"number": plan.number, "settings": asdict(plan.config), "directory": str(plan.directory)}


def _resources(config: TrainConfig) -> tune.PlacementGroupFactory:
    gpus = config.num_gpus_per_learner
    trial = {"CPU": 1.0, "GPU": 0.0 if config.num_learners else gpus}
    learner = {"GPU": gpus} if gpus else {"CPU": 1.0}
    return tune.PlacementGroupFactory(
        [trial, *[{"CPU": 1.0}] * config.num_env_runners, *[learner] * config.num_learners]
    )


def _scheduler(config: TrainConfig) -> ASHAScheduler:
    first = max(config.evaluation_interval, int(config.max_env_steps * _FIRST_RUNG))
    return ASHAScheduler(
        time_attr=ENV_STEPS,
        metric=GREEDY_RETURN,
        mode="max",
        max_t=config.max_env_steps,
        grace_period=min(first, config.max_env_steps),
        reduction_factor=_REDUCTION_FACTOR,
    )


class _Stopper(tune.Stopper):  # type: ignore[misc]
    def __init__(self, stops: Callable[[], bool]) -> None:
        self._stops = stops

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:  # noqa: ARG002
        return False

    def stop_all(self) -> bool:
        return self._stops()


class _Teller(tune.Callback):  # type: ignore[misc]
    """Tells the listener what Tune says."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def on_trial_start(self, iteration: int, trials: Sequence[Any], trial: Any, **_: Any) -> None:  # noqa: ARG002
        self._listener.started(_number(trial))

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: Sequence[Any],  # noqa: ARG002
        trial: Any,
        result: Mapping[str, Any],
        **_: Any,
    ) -> None:
        self._listener.reported(_number(trial), _report(result))

    def on_trial_complete(self, iteration: int, trials: Sequence[Any], trial: Any, **_: Any) -> None:  # noqa: ARG002
        self._listener.ended(_number(trial), is_over=_report(trial.last_result).is_over)

    def on_trial_error(self, iteration: int, trials: Sequence[Any], trial: Any, **_: Any) -> None:  # noqa: ARG002
        self._listener.failed(_number(trial), _reason(trial.error_file))


def _number(trial: Any) -> int:
    return int(trial.config["trial"]["number"])


def _reason(error_file: str | None) -> str:
    """The last line of a traceback that Tune wrote."""
    text = Path(error_file).read_text() if error_file and Path(error_file).exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "its process is gone."


def _report(result: Mapping[str, Any]) -> Report:
    return Report(**result[REPORT][0])
