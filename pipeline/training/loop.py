"""The search for the best policy: train, judge greedily, keep the best, and know when nothing is left to gain."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline import signals as interruption
from pipeline.bundle import assemble as bundle
from pipeline.config import TrainConfig
from pipeline.environments.make import Environment
from pipeline.evaluation import evaluation, recording
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.player import Player
from pipeline.rllib.trainer import Iteration, Trainer
from pipeline.tracking import checkpoint_store as checkpoints
from pipeline.tracking import run as tracking
from pipeline.tracking.figures import LearningCurve
from pipeline.training.loop_state import State
from pipeline.training.worker_process import Call, SideProcess

#: Evaluations draw their episodes from seeds far apart, so that no policy is judged on what it was chosen by.
_FIXED_SEED = 1_000_000
FINAL_SEED = 2_000_000
_FRESH_SEED = 1_000_000_000

#: Seconds between uploads of the learning curve while training.
_FIGURE_INTERVAL_S = 30.0

#: Seconds that an interrupted run gives its last checkpoint to arrive.
_LAST_UPLOAD_S = 60.0

_LATEST = "latest"


class Progress(Protocol):
    """What a person sees while a run goes on."""

    def budget(self, max_env_steps: int, env_steps: int) -> None:
        """There are so many environment steps, and some of them are done already."""

    def stage(self, message: str) -> None:
        """A new stage of the run begins."""

    def note(self, message: str) -> None:
        """Something happened within a stage."""

    def iteration(self, iteration: Iteration) -> None:
        """A PPO iteration is done."""

    def evaluated(self, env_steps: int, result: Evaluation) -> None:
        """A greedy evaluation is done."""


class Log(Protocol):
    """Where metrics and files go, as an `Outbox`."""

    run_id: str

    def metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the metrics of one step."""

    def file(self, key: str, send: Callable[[], object]) -> None:
        """Call `send` when its turn comes, unless a newer one of this key takes its place."""

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until all is sent, or for so long; returns whether all is."""


@dataclass(frozen=True)
class Found:
    """The best policy, as it will be served.

    Attributes:
        evaluation: The final one.
        step: Environment steps after which it was found.
        film: Records the first of its final episodes, beside the bundle; returns whether it could.
    """

    evaluation: Evaluation
    step: int
    film: Call


def examine(
    directory: Path, environment: Environment, episodes: int, first_seed: int, step: int, side: SideProcess
) -> Found:
    """Play the final evaluation of an assembled bundle, and let the side process film it meanwhile."""
    film = side.call(recording.record, directory, environment, first_seed, directory.parent / tracking.RECORDING)
    player = Player.served(bundle.load(directory))
    return Found(evaluation.play(player, environment, episodes, first_seed), step, film)


class Search:
    """The loop from the first iteration to the best policy, which it leaves in a directory as a bundle.

    Args:
        config: How to train.
        environment: What on.
        trainer: Untrained, or with a registered policy's weights.
        outbox: What it logs goes there.
        directory: For the bundle and its making; with the content of a checkpoint, the search goes on from there.
        progress: Is told.
        side: Plays half of each evaluation and makes the graph, if it has begun.
        trial: The export of an untrained policy, which may go on there.
    """

    def __init__(
        self,
        config: TrainConfig,
        environment: Environment,
        trainer: Trainer,
        outbox: Log,
        directory: Path,
        progress: Progress,
        side: SideProcess,
        trial: Call | None = None,
    ) -> None:
        self._side = side
        self._trial = trial
        self._config = config
        self._environment = environment
        self._trainer = trainer
        self._outbox = outbox
        self._directory = directory
        self._progress = progress
        self.target_return = environment.reward_threshold if config.target_return is None else config.target_return
        self._state = State(next_evaluation=config.evaluation_interval)
        if State.is_in(directory):
            self._state = State.read(directory)
            trainer.restore(directory / _LATEST, self._state.env_steps, self._state.returns)
        progress.budget(config.max_env_steps, self._state.env_steps)
        self._curve_posted = self._checkpoint_posted = time.monotonic()
        self._lost_env_runners = 0

    @property
    def run_id(self) -> str:
        """Of the MLflow run."""
        return self._outbox.run_id

    def best(self) -> Found:
        """Train until the best policy holds on episodes that it was not chosen by, or until the budget ends.

        Raises:
            Interrupted: After a signal, once the iteration is done and its checkpoint is uploaded.
        """
        while True:
            self._progress.stage(f"Training {self._environment.id}: {self._goal()}")
            with interruption.deferred() as pending:
                self._train(pending)
            self._progress.stage("Exporting the best policy and proving the graph equal to its checkpoint")
            self._assemble()
            found = self._examined()
            final = found.evaluation
            if self._holds(final) or self._is_spent():
                self._post_curve()
                return found
            found.film.result()
            self._progress.note(f"The best policy does not hold on fresh episodes: {final}; training goes on")
            self._state.finals += 1
            self._state.best_mean, self._state.best_perfect, self._state.stale = final.mean, False, 0

    def _assemble(self) -> None:
        self._finish_trial()
        self._side.call(bundle.assemble, self._directory, self._environment, self._config.value_estimates).result()

    def _examined(self) -> Found:
        episodes = self._config.evaluation_episodes
        first_seed = FINAL_SEED + self._state.finals * episodes
        return examine(self._directory, self._environment, episodes, first_seed, self._state.best_step, self._side)

    def _finish_trial(self) -> None:
        """Wait for the trial of the export, and raise what it raises."""
        trial, self._trial = self._trial, None
        if trial is not None:
            trial.result()

    @property
    def is_over(self) -> bool:
        """Whether the search is settled, or the budget spent."""
        return self._is_settled() or self._is_spent()

    def advance(self) -> State:
        """Train until one more evaluation is done, and pack a checkpoint: for one of many searches side by side.

        Returns:
            How far it is; it changes with the search.
        """
        for iteration in () if self.is_over else self._trainer.iterations():
            if self._digest(iteration):
                break
        self._post_checkpoint()
        return self._state

    def _digest(self, iteration: Iteration) -> bool:
        """Record an iteration, evaluate if it is time for it, and say whether it was."""
        state = self._state
        self._record(iteration)
        due = state.env_steps >= state.next_evaluation or self._is_spent()
        if due:
            state.next_evaluation = state.env_steps + self._config.evaluation_interval
            self._evaluate()
        return due

    def _train(self, pending: interruption.Pending) -> None:
        """Iterate until the search is settled, the budget is spent or a signal came."""
        state = self._state
        for iteration in () if self.is_over else self._trainer.iterations():
            if self._digest(iteration) and self.is_over:
                break
            if self._trial is not None and self._trial.is_answered:
                self._finish_trial()
            if pending.signal_name is not None:
                break
            if time.monotonic() - self._checkpoint_posted > self._config.checkpoint_interval_s:
                self._post_checkpoint()
        self._post_checkpoint()
        if pending.signal_name is not None:
            self._post_curve()
            self._progress.stage(f"{pending.signal_name}: uploading the checkpoint of {state.env_steps:,} steps")
            arrived = self._outbox.flush(_LAST_UPLOAD_S)
            if not arrived:
                self._progress.note("The checkpoint did not arrive; this goes on from the newest that did, if one did")
            self._progress.note(f"To go on: python -m pipeline train --resume {self.run_id}")

    def _is_spent(self) -> bool:
        return self._state.env_steps >= self._config.max_env_steps

    def _is_settled(self) -> bool:
        """Whether the target is reached, and more training found nothing better or cannot."""
        state = self._state
        reached = state.best_mean is not None and self._reached(state.best_mean)
        return reached and (state.best_perfect or state.stale >= self._config.patience)

    def _holds(self, final: Evaluation) -> bool:
        """Whether fresh episodes confirm the best policy: at the target, and perfect if it was."""
        if self.target_return is None:
            return True
        return self._reached(final.mean) and (final.is_constant or not self._state.best_perfect)

    def _reached(self, mean: float) -> bool:
        return self.target_return is not None and mean >= self.target_return

    def _record(self, iteration: Iteration) -> None:
        self._say_losses(iteration)
        if not iteration.sampled:
            return
        self._state.env_steps = iteration.env_steps
        self._state.training.append((iteration.env_steps, iteration.return_mean_100))
        self._outbox.metrics(iteration.metrics, step=iteration.env_steps)
        self._progress.iteration(iteration)

    def _say_losses(self, iteration: Iteration) -> None:
        lost, before = iteration.lost_env_runners, self._lost_env_runners
        if lost > before:
            number = self._config.num_env_runners
            until_then = "; until then iterations have no samples" if lost == number else ""
            self._progress.note(f"{lost} of {number} environment runners lost; starting anew{until_then}")
        elif before and not lost:
            self._progress.note("All environment runners are back")
        self._lost_env_runners = lost

    def _evaluate(self) -> None:
        """Evaluate the policy as it is now, and keep it if it is the best so far."""
        state = self._state
        fixed, judged = self._judge()
        self._outbox.metrics({"evaluation/greedy_return_mean": judged.mean}, step=state.env_steps)
        state.evaluation.append((state.env_steps, judged.mean))
        self._progress.evaluated(state.env_steps, judged)
        state.stale += 1
        if self._is_better(judged.mean):
            state.best_step, state.best_mean, state.stale = state.env_steps, judged.mean, 0
            state.best_perfect = self._reached(judged.mean) and fixed.is_constant and judged.is_constant
            self._trainer.save(self._directory / bundle.CHECKPOINT_DIRECTORY)
        if time.monotonic() - self._curve_posted > _FIGURE_INTERVAL_S:
            self._post_curve()

    def _is_better(self, mean: float) -> bool:
        best = self._state.best_mean
        # Short of the target, the later of two equal policies is the one that learned more.
        return best is None or mean > best or (mean == best and not self._reached(mean))

    def _judge(self) -> tuple[Evaluation, Evaluation]:
        """The evaluation on the fixed seeds, and what to judge by: if that reaches the target, the worse of two."""
        fixed = self._play(_FIXED_SEED)
        if not self._reached(fixed.mean):
            return fixed, fixed
        return fixed, min(fixed, self._play(_FRESH_SEED + self._state.env_steps), key=lambda each: each.mean)

    def _play(self, first_seed: int) -> Evaluation:
        policy, episodes = self._trainer.policy, self._config.evaluation_episodes
        return evaluation.play_beside(self._side, policy, self._environment, episodes, first_seed)

    def _goal(self) -> str:
        budget = f"{self._config.max_env_steps:,} environment steps"
        return budget if self.target_return is None else f"until a greedy return of {self.target_return:g}, or {budget}"

    def _post_curve(self) -> None:
        curve = LearningCurve(self.target_return, list(self._state.training), list(self._state.evaluation))
        title = f"PPO on {self._environment.id}"
        self._outbox.file(
            "curve", lambda: tracking.log_figure(self.run_id, curve.figure(title), tracking.LEARNING_CURVE)
        )
        self._curve_posted = time.monotonic()

    def _post_checkpoint(self) -> None:
        """Save what the search needs to go on, and send it: the newest weights, the best ones, the state."""
        state = self._state
        state.returns = list(self._trainer.returns)
        self._trainer.save(self._directory / _LATEST)
        state.write(self._directory)
        archive = checkpoints.pack(self._directory, state.env_steps)
        self._outbox.file("checkpoint", lambda: checkpoints.upload(self.run_id, archive))
        self._checkpoint_posted = time.monotonic()
