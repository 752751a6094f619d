"""Runs trials with Ray Tune: starts their processes, stops those that fall behind, and forwards their reports."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler

from pipeline.config import TrainConfig
from pipeline.tuning.trial import ENV_STEPS, GREEDY_RETURN, REPORT, PolicyTrial, TrialPlan, TrialReport
from pipeline.tuning.trial_runs import TrialRuns


def run(
    plans: Sequence[TrialPlan], directory: Path, max_concurrent: int, runs: TrialRuns, should_stop: Callable[[], bool]
) -> None:
    """Run trials concurrently until all have ended or `should_stop`, called several times a second, returns true.

    The trials share their budget and evaluation interval. Tune writes its own files into the directory.
    """
    os.environ |= {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # MLflow has all metrics
        "RAY_AIR_NEW_OUTPUT": "0",  # it prints even with verbose=0
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # pipeline.signals handles signals
        "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # searches resume from MLflow, not from this checkpoint
        "RAY_CHDIR_TO_TRIAL_DIR": "0",  # `module:Id` is imported from the working directory of the command
    }
    for name in ("ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    config = plans[0].config
    tune.run(
        PolicyTrial,
        name="trials",
        config={"trial": tune.grid_search([plan.as_content() for plan in plans])},
        resources_per_trial=_resources(config),
        scheduler=_scheduler(config),
        stop=_Stopper(should_stop),
        callbacks=[_Callback(runs)],
        max_concurrent_trials=max_concurrent,
        reuse_actors=True,
        raise_on_failed_trial=False,
        storage_path=str(directory),
        verbose=0,
    )


def _resources(config: TrainConfig) -> tune.PlacementGroupFactory:
    gpus = config.num_gpus_per_learner
    trial = {"CPU": 1.0, "GPU": 0.0 if config.num_learners else gpus}
    learner = {"GPU": gpus} if gpus else {"CPU": 1.0}
    return tune.PlacementGroupFactory(
        [trial, *[{"CPU": 1.0}] * config.num_env_runners, *[learner] * config.num_learners]
    )


def _scheduler(config: TrainConfig) -> ASHAScheduler:
    """Return a scheduler that continues the best third at each rung; the first rung is a ninth of the budget."""
    first = max(config.evaluation_interval, config.max_env_steps // 9)
    return ASHAScheduler(
        time_attr=ENV_STEPS,
        metric=GREEDY_RETURN,
        mode="max",
        max_t=config.max_env_steps,
        grace_period=min(first, config.max_env_steps),
        reduction_factor=3,
    )


class _Stopper(tune.Stopper):  # type: ignore[misc]
    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:  # noqa: ARG002
        return False

    def stop_all(self) -> bool:
        return self._should_stop()


class _Callback(tune.Callback):  # type: ignore[misc]
    """Forwards the events of Tune, which passes all arguments by name, to the runs of the trials."""

    def __init__(self, runs: TrialRuns) -> None:
        self._runs = runs

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:
        self._runs.started(_number(trial))

    def on_trial_result(self, *, trial: Any, result: Mapping[str, Any], **_: Any) -> None:
        self._runs.reported(_number(trial), TrialReport(**result[REPORT][0]))

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        self._runs.ended(_number(trial), is_finished=trial.last_result[REPORT][0]["is_finished"])

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        self._runs.failed(_number(trial), _reason(trial.error_file))


def _number(trial: Any) -> int:
    return int(trial.config["trial"]["number"])


def _reason(error_file: str | None) -> str:
    """Return the last line of the traceback that Tune wrote."""
    text = Path(error_file).read_text() if error_file and Path(error_file).exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "its process died."
