"""The training loop: trains, evaluates greedily, keeps the best policy, and decides when to stop."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import mlflow

from pipeline import signals
from pipeline.config import TrainConfig
from pipeline.errors import Interrupted
from pipeline.evaluation import trend
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.trend import Trend
from pipeline.rllib.trainer import Iteration, Trainer
from pipeline.tracking import checkpoint_store, figures
from pipeline.tracking import run as tracking
from pipeline.training.evaluator import CONFIRMATION_SEED, FINAL_SEED, SELECTION_SEED, BestPolicy, Evaluator
from pipeline.training.loop_state import LoopState
from pipeline.training.progress import TrainingProgress
from pipeline.training.workspace import Workspace

#: Seconds between uploads of the learning curve while training.
_FIGURE_INTERVAL_S = 30.0

#: Seconds that an iteration may take to end after a signal; one whose environment hangs is left.
_LONGEST_ITERATION_S = 10.0


class Log(Protocol):
    """Receives metrics and files, as `MetricQueue` does."""

    run_id: str

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the metrics of one step."""

    def upload(self, key: str, send: Callable[[], object]) -> None:
        """Enqueue an upload, which replaces a waiting one of the same key."""


@dataclass(frozen=True)
class Kind:
    """What the trainer of a loop does.

    Attributes:
        name: What the learning curve is titled with.
        verb: The stage that progress shows.
        steps: What the steps of its budget are.
        gives_up: Whether it ends after `patience` evaluations without improvement even short of the target.
    """

    name: str
    verb: str
    steps: str
    gives_up: bool = False


PPO = Kind("PPO", "Training", "environment steps")


@dataclass
class Loop:
    """The loop from the first iteration to the best policy, which it leaves in the workspace as a bundle.

    Attributes:
        config: The settings of the training.
        trainer: Untrained, or with the weights of a registered policy.
        evaluator: Evaluates policies and exports the best one.
        log: Receives metrics, figures and checkpoints.
        workspace: Receives checkpoints.
        progress: Shows the progress.
        kind: What the trainer does.
        state: How far it has come, if not to the beginning.
    """

    config: TrainConfig
    trainer: Trainer
    evaluator: Evaluator
    log: Log
    workspace: Workspace
    progress: TrainingProgress
    kind: Kind = PPO
    state: LoopState | None = None

    def __post_init__(self) -> None:
        self._target_return = self.evaluator.target_return
        self._state = self.state or LoopState(next_evaluation=self.config.evaluation_interval)
        self._curve_time = self._checkpoint_time = time.monotonic()
        self._lost_env_runners = 0
        self._is_cut_noted = False

    def resume(self) -> None:
        """Continue from the checkpoint in the workspace: weights, optimizer, counters and the best policy."""
        self._state = LoopState.read(self.workspace.bundle)
        self.trainer.restore(self.workspace.latest, self._state.env_steps, self._state.returns)

    def run(self) -> BestPolicy:
        """Train until the best policy passes a final evaluation on fresh episodes, or until the budget is spent.

        Raises:
            ExportFailed, ExportDiffers: If the policy cannot be served.
            Interrupted: After a signal, once the iteration is done and the upload of its checkpoint is enqueued.
        """
        while True:
            self.train()
            self.progress.stage("Exporting the best policy and comparing the graph with its checkpoint")
            self.evaluator.export()
            first_seed = FINAL_SEED + self._state.finals * self.config.evaluation_episodes
            best = self.evaluator.evaluate_bundle(self._state.best_step, first_seed)
            if self._is_confirmed(best.evaluation) or self._is_budget_spent() or self._gives_up():
                self._upload_curve()
                return best
            best.recorded(self.workspace.recording, self.progress.note)
            self.progress.note(f"The best policy fails on fresh episodes: {best.evaluation}; training continues")
            self._state.finals += 1
            self._state.best_mean, self._state.best_perfect, self._state.stale = best.evaluation.mean, False, 0

    @property
    def trend(self) -> Trend:
        """What the returns have done by now."""
        is_gaussian = self.evaluator.environment.has_continuous_actions
        return trend.of_curves(self._state.evaluation, self._state.training, is_gaussian=is_gaussian)

    @property
    def is_finished(self) -> bool:
        """Whether more training would not help, or the budget is spent."""
        return self._is_converged() or self._is_budget_spent()

    def train_until_evaluation(self) -> LoopState:
        """Train until the next evaluation is done, and pack a checkpoint.

        Returns:
            The state of the loop, which later calls change.
        """
        for iteration in () if self.is_finished else self.trainer.iterations():
            if self._process(iteration):
                break
        self._save_checkpoint()
        return self._state

    def train(self) -> LoopState:
        """Train until the loop is finished, and save a checkpoint; return the state. Raises Interrupted as `run`."""
        self.progress.budget(self.config.max_env_steps, self._state.env_steps)
        self.progress.stage(f"{self.kind.verb} {self.config.env_id}: {self._goal()}")
        try:
            with signals.deferred(_LONGEST_ITERATION_S):
                self._evaluate_if_due()  # a signal may have interrupted it
                for iteration in () if self.is_finished else self.trainer.iterations():
                    if self._process(iteration) and self.is_finished:
                        break
                    self.evaluator.check_preflight()
                    if time.monotonic() - self._checkpoint_time > self.config.checkpoint_interval_s:
                        self._save_checkpoint()
                    signals.check()
        except Interrupted as interruption:
            self._save_checkpoint()
            self._upload_curve()
            env_steps = self._state.env_steps
            self.progress.stage(f"{interruption.signal_name}: uploading the checkpoint of {env_steps:,} steps")
            raise
        self._save_checkpoint()
        return self._state

    def _process(self, iteration: Iteration) -> bool:
        """Record an iteration and evaluate the policy if an evaluation is due; return whether it was."""
        self._record(iteration)
        return self._evaluate_if_due()

    def _evaluate_if_due(self) -> bool:
        state = self._state
        is_due = state.env_steps >= state.next_evaluation or (self._is_budget_spent() and not self._is_evaluated())
        if is_due:
            self._evaluate()
            state.next_evaluation = state.env_steps + self.config.evaluation_interval
        return is_due

    def _record(self, iteration: Iteration) -> None:
        self._report_lost_env_runners(iteration)
        if not iteration.sampled:
            return
        self._state.env_steps = iteration.env_steps
        self._state.training.append((iteration.env_steps, iteration.return_mean_100))
        self.log.log_metrics(iteration.metrics, step=iteration.env_steps)
        self.progress.iteration(iteration)

    def _report_lost_env_runners(self, iteration: Iteration) -> None:
        lost, before = iteration.lost_env_runners, self._lost_env_runners
        if lost > before:
            number = self.config.num_env_runners
            until_then = "; until then iterations have no samples" if lost == number else ""
            self.progress.note(f"{lost} of {number} environment runners lost; restarting them{until_then}")
        elif before and not lost:
            self.progress.note("All environment runners are back")
        self._lost_env_runners = lost

    def _evaluate(self) -> None:
        """Evaluate the current policy, and save its checkpoint if it is the best so far."""
        state = self._state
        with signals.immediate():
            selection, result = self._evaluations()
        self.log.log_metrics({"evaluation/greedy_return_mean": result.mean}, step=state.env_steps)
        state.evaluation.append((state.env_steps, result.mean))
        self.progress.evaluated(state.env_steps, result)
        if result.notice and not self._is_cut_noted:
            self._is_cut_noted = True
            self.progress.note(result.notice)
        state.stale += 1
        if self._is_better(result.mean):
            state.best_step, state.best_mean, state.stale = state.env_steps, result.mean, 0
            state.best_perfect = self._reaches_target(result.mean) and selection.is_constant and result.is_constant
            self.trainer.save(self.workspace.best)
        if time.monotonic() - self._curve_time > _FIGURE_INTERVAL_S:
            self._upload_curve()

    def _evaluations(self) -> tuple[Evaluation, Evaluation]:
        """Return the evaluation on the selection seeds, and the worse of it and, at the target, one on fresh seeds."""
        policy = self.trainer.policy
        selection = self.evaluator.evaluate(policy, SELECTION_SEED)
        if not self._reaches_target(selection.mean):
            return selection, selection
        confirmation = self.evaluator.evaluate(policy, CONFIRMATION_SEED + self._state.env_steps)
        return selection, min(selection, confirmation, key=lambda each: each.mean)

    def _is_better(self, mean: float) -> bool:
        best = self._state.best_mean
        if math.isnan(mean):
            return False
        # Short of the target, the later of two equal policies has learned more.
        return best is None or math.isnan(best) or mean > best or (mean == best and not self._reaches_target(mean))

    def _is_confirmed(self, final: Evaluation) -> bool:
        """Return whether fresh episodes confirm the best policy: at the target, and perfect if it was."""
        if self._target_return is None:
            return True
        return self._reaches_target(final.mean) and (final.is_constant or not self._state.best_perfect)

    def _is_converged(self) -> bool:
        """Return whether the target is reached and further training cannot improve the policy, or did not lately."""
        state = self._state
        is_reached = state.best_mean is not None and self._reaches_target(state.best_mean)
        return self._gives_up() or (is_reached and (state.best_perfect or state.stale >= self.config.patience))

    def _gives_up(self) -> bool:
        return self.kind.gives_up and self._state.stale >= self.config.patience

    def _is_evaluated(self) -> bool:
        evaluation = self._state.evaluation
        return bool(evaluation) and evaluation[-1][0] == self._state.env_steps

    def _is_budget_spent(self) -> bool:
        return self._state.env_steps >= self.config.max_env_steps

    def _reaches_target(self, mean: float) -> bool:
        return self._target_return is not None and mean >= self._target_return

    def _goal(self) -> str:
        budget = f"{self.config.max_env_steps:,} {self.kind.steps}"
        return (
            budget if self._target_return is None else f"until a greedy return of {self._target_return:g}, or {budget}"
        )

    def _upload_curve(self) -> None:
        title, target_return, run_id = f"{self.kind.name} on {self.config.env_id}", self._target_return, self.log.run_id
        training, evaluation = list(self._state.training), list(self._state.evaluation)

        def send() -> None:
            figure = figures.learning_curve(training, evaluation, target_return, title)
            mlflow.MlflowClient().log_figure(run_id, figure, tracking.LEARNING_CURVE)

        self.log.upload("curve", send)
        self._curve_time = time.monotonic()

    def _save_checkpoint(self) -> None:
        """Save and upload the newest weights, the best ones and the state."""
        state, workspace, run_id, notify = self._state, self.workspace, self.log.run_id, self.progress.note
        state.returns = list(self.trainer.returns)
        self.trainer.save(workspace.latest)
        state.write(workspace.bundle)
        checkpoint_store.pack(workspace.bundle, workspace.archive, state.env_steps)
        self.log.upload("checkpoint", lambda: checkpoint_store.upload(run_id, workspace.archive, notify))
        self._checkpoint_time = time.monotonic()
