"""A training run, whole: train until solved, keep the best policy, prove its export, evaluate and register it."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline import bundle, environments, evaluation, export, tracking
from pipeline.config import TrainConfig
from pipeline.environments import Environment
from pipeline.evaluation import Evaluation
from pipeline.export import GreedyPolicy
from pipeline.figures import LearningCurve
from pipeline.training import Iteration, Trainer
from serving.registry import check_tracking_server

#: Evaluations draw their episodes from seeds far apart, so that no policy is judged on what it was chosen by.
_FIXED_SEED = 1_000_000
_FINAL_SEED = 2_000_000
_FRESH_SEED = 1_000_000_000

#: Seconds between uploads of the learning curve while training.
_FIGURE_INTERVAL_S = 30.0


class Progress(Protocol):
    """What a person sees while a run goes on."""

    def stage(self, message: str) -> None:
        """A new stage of the run begins."""

    def iteration(self, iteration: Iteration) -> None:
        """A PPO iteration is done."""

    def evaluated(self, env_steps: int, result: Evaluation) -> None:
        """A greedy evaluation is done."""


@dataclass(frozen=True)
class Trained:
    """What a training run registered.

    Attributes:
        name: The registered model.
        version: Its new version.
        run_id: The MLflow run.
        evaluation: The final evaluation, of the bundle as it will be served.
        target_return: What was to be reached; None if nothing was.
    """

    name: str
    version: int
    run_id: str
    evaluation: Evaluation
    target_return: float | None

    @property
    def solved(self) -> bool:
        """Whether the final evaluation reached the target."""
        return self.target_return is None or self.evaluation.mean >= self.target_return


def train(config: TrainConfig, progress: Progress) -> Trained:
    """Train, and register the best policy.

    Raises:
        TrackingServerUnreachable: Before anything else starts.
        EnvironmentNotFound, UnsupportedSpace: For an environment that cannot be trained on.
        ExportFailed: Before training begins, for a policy that could not be served.
        ExportDiffers: For a graph that is not the policy; nothing is registered then.
        Interrupted: On SIGINT and SIGTERM; nothing is registered then.
    """
    check_tracking_server()
    environment = environments.describe(config.env_id)
    with tracking.run("train") as run_id, tempfile.TemporaryDirectory(prefix="cartpole-ppo-") as directory:
        tracking.log_params(run_id, config.as_params())
        tracking.log_config(config.as_params())
        progress.stage(f"MLflow run {run_id}; starting Ray")
        with Trainer(config, environment) as trainer:
            search = _Search(config, environment, trainer, Path(directory), progress)
            search.until_solved()
        progress.stage("Exporting the best policy and proving the graph equal to its checkpoint")
        policy = bundle.assemble(Path(directory), environment)
        final = evaluation.play(policy.act, environment, config.evaluation_episodes, _FINAL_SEED)
        logged = bundle.log(Path(directory), environment, run_id, search.best_step)
        tracking.log_evaluation(run_id, final, logged.model_id)
        tags = {"env_id": config.env_id} | tracking.version_tags(final)
        if search.target_return is not None:
            tags["target_return"] = f"{search.target_return:g}"
        version = bundle.register(logged, config.registered_model_name, tags)
        return Trained(config.registered_model_name, version, run_id, final, search.target_return)


class _Search:
    """The loop from the first iteration to the best policy, whose checkpoint it leaves in a directory."""

    def __init__(
        self, config: TrainConfig, environment: Environment, trainer: Trainer, directory: Path, progress: Progress
    ) -> None:
        self._config = config
        self._environment = environment
        self._trainer = trainer
        self._checkpoint = directory / bundle.CHECKPOINT_DIRECTORY
        self._progress = progress
        self.target_return = environment.reward_threshold if config.target_return is None else config.target_return
        self.best_step = 0
        self._best_mean = -float("inf")
        self._curve = LearningCurve(self.target_return)
        self._curve_logged = time.monotonic()

    def until_solved(self) -> None:
        """Train until a greedy evaluation and its confirmation reach the target, or the budget ends."""
        self._progress.stage("Trying the export before training begins")
        export.to_onnx(self._policy(), self._environment.observation_space)
        self._progress.stage(f"Training {self._environment.id}: {self._goal()}")
        next_evaluation = self._config.evaluation_interval
        for iteration in self._trainer.iterations():
            self._record(iteration)
            ended = iteration.env_steps >= self._config.max_env_steps
            if iteration.env_steps >= next_evaluation or ended:
                next_evaluation = iteration.env_steps + self._config.evaluation_interval
                if self._is_solved(iteration.env_steps) or ended:
                    break
        self._log_curve()

    def _record(self, iteration: Iteration) -> None:
        tracking.log_metrics(iteration.metrics, step=iteration.env_steps)
        self._curve.training.append((iteration.env_steps, iteration.return_mean_100))
        self._progress.iteration(iteration)

    def _is_solved(self, env_steps: int) -> bool:
        """Evaluate the policy as it is now, and keep it if it is the best so far."""
        judged = self._judge(env_steps)
        tracking.log_metrics({"evaluation/greedy_return_mean": judged.mean}, step=env_steps)
        self._curve.evaluation.append((env_steps, judged.mean))
        self._progress.evaluated(env_steps, judged)
        if judged.mean >= self._best_mean:
            self._best_mean, self.best_step = judged.mean, env_steps
            self._trainer.save(self._checkpoint)
        if time.monotonic() - self._curve_logged > _FIGURE_INTERVAL_S:
            self._log_curve()
        return self._reached(judged)

    def _judge(self, env_steps: int) -> Evaluation:
        """The evaluation on the fixed seeds; if that reaches the target, the worse of it and one on fresh seeds."""
        fixed = self._play(_FIXED_SEED)
        if not self._reached(fixed):
            return fixed
        return min(fixed, self._play(_FRESH_SEED + env_steps), key=lambda each: each.mean)

    def _play(self, first_seed: int) -> Evaluation:
        return evaluation.play(self._policy().act, self._environment, self._config.evaluation_episodes, first_seed)

    def _policy(self) -> GreedyPolicy:
        return GreedyPolicy(self._trainer.module, self._environment.action_space)

    def _reached(self, result: Evaluation) -> bool:
        return self.target_return is not None and result.mean >= self.target_return

    def _goal(self) -> str:
        budget = f"{self._config.max_env_steps:,} environment steps"
        return budget if self.target_return is None else f"until a greedy return of {self.target_return:g}, or {budget}"

    def _log_curve(self) -> None:
        tracking.log_figure(self._curve.figure(f"PPO on {self._environment.id}"), "learning_curve.png")
        self._curve_logged = time.monotonic()
