"""One trial of a search over settings, as Ray Tune runs it: a process that trains, and is asked for evaluations."""

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
from pipeline.training.loop import Search
from pipeline.training.worker_process import SideProcess

#: Keys of what a trial reports, which schedulers go by; the others are in `REPORT`.
ENV_STEPS = "env_steps"
GREEDY_RETURN = "greedy_return"
REPORT = "report"


class PolicyTrial(tune.Trainable):  # type: ignore[misc]
    """Trains with the settings of one trial; each step ends with a greedy evaluation.

    What it reports is judged by the best greedy return so far, for that policy is the one that would be registered. An
    iteration in which no episode ends changes nothing there. Its process goes on to other trials.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Begin a trial, or go on from the checkpoint in its directory."""
        told = config["trial"]
        settings = TrainConfig.of(told["settings"])
        directory = Path(told["directory"])
        environment = environments.describe(settings.env_id, settings.environment_kwargs, settings.wrappers)
        self._relay = _Relay()
        with contextlib.ExitStack() as stack:
            trainer = stack.enter_context(Trainer(settings, environment))
            self._search = Search(settings, environment, trainer, self._relay, directory, self._relay, SideProcess())
            self._until_cleanup = stack.pop_all()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Go on to another trial in this process."""
        self.cleanup()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train until one more evaluation is done, and report.

        Raises:
            ValueError: If its returns are no numbers.
        """
        state = self._search.advance()
        if state.best_mean is None or not math.isfinite(state.best_mean):
            raise ValueError(f"the greedy return is {state.best_mean}, expected a finite number")
        report = {
            "env_steps": state.env_steps,
            "best_mean": state.best_mean,
            "best_step": state.best_step,
            "best_perfect": state.best_perfect,
        }
        return {
            ENV_STEPS: state.env_steps,
            GREEDY_RETURN: state.best_mean,
            REPORT: [report | {"is_over": self._search.is_over, "metrics": self._relay.take()}],
            "done": self._search.is_over,
        }

    def cleanup(self) -> None:
        """Stop training."""
        self._until_cleanup.close()


class _Relay:
    """Collects what a search logs, for the process that writes it to MLflow; a person watches there."""

    run_id = ""

    def __init__(self) -> None:
        self._metrics: list[tuple[int, int, dict[str, float]]] = []

    def take(self) -> list[tuple[int, int, dict[str, float]]]:
        """What was logged since the last call: time in milliseconds, environment steps, metrics."""
        taken, self._metrics = self._metrics, []
        return taken

    def metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self._metrics.append((int(time.time() * 1000), step, dict(metrics)))

    def file(self, key: str, send: Callable[[], object]) -> None:
        """Nothing: the checkpoint's archive is found beside the trial's directory."""

    def flush(self, timeout_s: float | None = None) -> bool:  # noqa: ARG002
        return True

    def budget(self, max_env_steps: int, env_steps: int) -> None: ...

    def stage(self, message: str) -> None: ...

    def note(self, message: str) -> None: ...

    def iteration(self, iteration: Iteration) -> None: ...

    def evaluated(self, env_steps: int, result: Evaluation) -> None: ...
