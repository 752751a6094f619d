"""One trial of a hyperparameter search: a Ray Tune trainable that trains until its next evaluation in each step."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray import tune

from pipeline.config import TrainConfig
from pipeline.environments import make as environments
from pipeline.evaluation.evaluation import Evaluation
from pipeline.rllib.trainer import Iteration, Trainer
from pipeline.training.evaluator import Evaluator
from pipeline.training.loop import Loop
from pipeline.training.worker_process import WorkerProcess
from pipeline.training.workspace import Workspace

#: Keys of a result. Schedulers read the first two; `REPORT` holds the fields of a `TrialReport`.
ENV_STEPS = "env_steps"
GREEDY_RETURN = "greedy_return"
REPORT = "report"


class PolicyTrial(tune.Trainable):  # type: ignore[misc]
    """Trains with the settings of one trial; each step ends with a greedy evaluation.

    The scheduler compares the best greedy returns so far, because that policy would be registered. An iteration in
    which no episode ends therefore changes nothing. Tune reuses the process for later trials.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Start a trial, or resume it from the checkpoint in its workspace."""
        trial = config["trial"]
        settings = TrainConfig.of(trial["settings"])
        workspace = Workspace(Path(trial["workspace"]))
        environment = environments.describe(settings.env_id, settings.environment_kwargs, settings.wrappers)
        evaluator = Evaluator(settings, environment, workspace, WorkerProcess())
        self._log = _TrialLog()
        with contextlib.ExitStack() as stack:
            trainer = stack.enter_context(Trainer(settings, environment))
            self._loop = Loop(settings, trainer, evaluator, self._log, workspace, self._log)
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
        if state.best_mean is None or not math.isfinite(state.best_mean):
            raise ValueError(f"the greedy return is {state.best_mean}, expected a finite number")
        report = {
            "env_steps": state.env_steps,
            "best_mean": state.best_mean,
            "best_step": state.best_step,
            "best_perfect": state.best_perfect,
            "is_finished": self._loop.is_finished,
            "metrics": self._log.take(),
        }
        return {
            ENV_STEPS: state.env_steps,
            GREEDY_RETURN: state.best_mean,
            REPORT: [report],
            "done": self._loop.is_finished,
        }

    def cleanup(self) -> None:
        """Stop training."""
        self._until_cleanup.close()


class _TrialLog:
    """Collects the metrics of a loop for the process that writes them to MLflow, and shows no progress."""

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

    def flush(self, timeout_s: float | None = None) -> bool:  # noqa: ARG002
        return True

    def budget(self, max_env_steps: int, env_steps: int) -> None: ...

    def stage(self, message: str) -> None: ...

    def note(self, message: str) -> None: ...

    def iteration(self, iteration: Iteration) -> None: ...

    def evaluated(self, env_steps: int, result: Evaluation) -> None: ...
