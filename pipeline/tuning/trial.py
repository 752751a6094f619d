"""One trial of a hyperparameter search: a Ray Tune trainable that trains until its next evaluation in each step."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from rich.console import Console

from pipeline.config import TrainConfig
from pipeline.environments import make as environments
from pipeline.rllib.trainer import Trainer
from pipeline.training.evaluator import Evaluator
from pipeline.training.loop import Loop
from pipeline.training.progress import TrainingProgress
from pipeline.training.worker_process import WorkerProcess
from pipeline.training.workspace import Workspace

#: Keys of a result. Schedulers read the first two; `REPORT` holds the fields of a `TrialReport`.
ENV_STEPS = "env_steps"
GREEDY_RETURN = "greedy_return"
REPORT = "report"


@dataclass(frozen=True)
class TrialPlan:
    """A trial to run.

    Attributes:
        number: The number of the trial.
        config: Its settings.
        workspace: Its files.
        resumes: Whether it resumes from the checkpoint in its workspace.
    """

    number: int
    config: TrainConfig
    workspace: Workspace
    resumes: bool

    def as_content(self) -> dict[str, Any]:
        """Return the plan as plain values, which Tune writes into its files."""
        return vars(self) | {"config": self.config.as_params(), "workspace": str(self.workspace.root)}


@dataclass(frozen=True)
class TrialReport:
    """The progress of a trial after an evaluation.

    Attributes:
        env_steps: Environment steps since the trial began.
        best_mean: The best mean greedy return so far.
        best_step: Environment steps at which that policy was found.
        best_perfect: Whether that policy reached the target with all returns equal.
        is_finished: Whether the trial ends by itself.
        metrics: The metrics since the last report: time in milliseconds, environment steps, values by name.
    """

    env_steps: int
    best_mean: float
    best_step: int
    best_perfect: bool
    is_finished: bool
    metrics: Sequence[tuple[int, int, Mapping[str, float]]]


class PolicyTrial(tune.Trainable):  # type: ignore[misc]
    """Trains with the settings of one trial; each step ends with a greedy evaluation.

    The scheduler compares the best greedy returns so far, because that policy would be registered. An iteration in
    which no episode ends therefore changes nothing. Tune reuses the process for later trials.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Start a trial, or resume it from the checkpoint in its workspace."""
        trial = config["trial"]
        settings = TrainConfig.of(trial["config"])
        workspace = Workspace(Path(trial["workspace"]))
        environment = environments.of_config(settings)
        evaluator = Evaluator(settings, environment, workspace, WorkerProcess())
        self._log = _TrialLog()
        with contextlib.ExitStack() as stack:
            trainer = stack.enter_context(Trainer(settings, environment))
            progress = stack.enter_context(TrainingProgress(Console(quiet=True)))
            self._loop = Loop(settings, trainer, evaluator, self._log, workspace, progress)
            if trial["resumes"]:
                self._loop.resume()
            self._until_cleanup = stack.pop_all()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start another trial in this process."""
        self.cleanup()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train until the next evaluation is done, and report it.

        Raises:
            ValueError: If the greedy return is not finite.
        """
        state = self._loop.train_until_evaluation()
        _, mean = state.evaluation[-1]
        if state.best_mean is None or not math.isfinite(mean):
            raise ValueError(f"the greedy return is {mean}, expected a finite number")
        best = state.best_mean, state.best_step, state.best_perfect
        report = TrialReport(state.env_steps, *best, self._loop.is_finished, self._log.take())
        # Tune keeps statistics of all numbers in a result, except those within a list.
        return {
            ENV_STEPS: report.env_steps,
            GREEDY_RETURN: report.best_mean,
            REPORT: [vars(report)],
            "done": report.is_finished,
        }

    def cleanup(self) -> None:
        """Stop training."""
        self._until_cleanup.close()


class _TrialLog:
    """Collects the metrics of a loop for the process that writes them to MLflow."""

    run_id = ""

    def __init__(self) -> None:
        self._metrics: list[tuple[int, int, dict[str, float]]] = []

    def take(self) -> list[tuple[int, int, dict[str, float]]]:
        """Return the metrics since the last call: time in milliseconds, environment steps, values by name."""
        taken, self._metrics = self._metrics, []
        return taken

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self._metrics.append((int(time.time() * 1000), step, dict(metrics)))

    def upload(self, key: str, send: Callable[[], object]) -> None:
        """Do nothing: the other process uploads the checkpoint from the trial's workspace."""
