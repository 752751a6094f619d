"""The loop keeps the best policy, stops when nothing is left to gain, and saves what it needs to resume."""

import dataclasses
import json
import math
import signal
import tarfile
from concurrent.futures import Future

import pytest
from gymnasium.spaces import Box, Discrete

from pipeline.config import TrainConfig
from pipeline.environments.make import Environment
from pipeline.errors import Interrupted
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.recording import Recording
from pipeline.evaluation.trend import Trend
from pipeline.rllib.trainer import Iteration
from pipeline.signals import interruptible
from pipeline.training.evaluator import CONFIRMATION_SEED, FINAL_SEED, SELECTION_SEED, BestPolicy
from pipeline.training.loop import Loop
from pipeline.training.workspace import Workspace

TARGET = 100.0


class Trainer:
    """Takes 1000 environment steps per iteration; its policy is the number of steps, its checkpoints hold it."""

    def __init__(self):
        self.env_steps = 0
        self.returns = []
        self.lost_env_runners = iter(())
        self.during_iteration = lambda: None

    @property
    def policy(self):
        return self.env_steps

    def iterations(self):
        while True:
            self.env_steps += 1000
            self.returns.append(float(self.env_steps))
            self.during_iteration()
            lost = next(self.lost_env_runners, 0)
            yield Iteration(self.env_steps, 0 if lost else 1000, lost, 1.0, {"train/entropy": 0.5})

    def save(self, directory):
        directory.mkdir(exist_ok=True)
        (directory / "weights").write_text(str(self.env_steps))

    def restore(self, directory, env_steps, returns):
        assert (directory / "weights").read_text() == str(env_steps)
        self.env_steps, self.returns = env_steps, list(returns)


class Evaluator:
    """Returns the mean that a table gives for the environment steps of a policy; the last entry holds for later ones.

    `fresh` replaces the means on seeds other than those of selection.
    """

    target_return = TARGET
    environment = Environment("CartPole-v1", Box(-5, 5, (4,)), Discrete(2), TARGET, has_vector_entry_point=True)

    def __init__(self, workspace, means, fresh=None, spread=1.0):
        self._workspace, self._means, self._fresh, self._spread = workspace, means, fresh or {}, spread
        self.exported, self.final_seeds = [], []

    def evaluate(self, policy, first_seed):
        means = self._means if first_seed == SELECTION_SEED else self._means | self._fresh
        assert first_seed in {SELECTION_SEED, CONFIRMATION_SEED + policy}
        return self._evaluation(means[min(policy, max(means))], first_seed)

    def check_preflight(self):
        pass

    def export(self):
        self.exported.append((self._workspace.best / "weights").read_text())

    def evaluate_bundle(self, step, first_seed):
        self.final_seeds.append(first_seed)
        recording = Future()
        recording.set_result(Recording(is_written=False))
        means = self._means | self._fresh
        return BestPolicy(self._evaluation(means[min(step, max(means))], first_seed), step, recording)

    def _evaluation(self, mean, first_seed):
        return Evaluation((mean - self._spread, mean + self._spread), first_seed)


class Log:
    """Keeps what a loop logs."""

    run_id = "0" * 32

    def __init__(self):
        self.metrics, self.keys = [], []

    def log_metrics(self, metrics, step):
        self.metrics.append((step, dict(metrics)))

    def upload(self, key, send):  # noqa: ARG002
        self.keys.append(key)


class Progress:
    """Keeps what a loop shows."""

    def __init__(self):
        self.messages, self.budgets = [], []

    def budget(self, max_env_steps, env_steps):
        self.budgets.append((max_env_steps, env_steps))

    def stage(self, message):
        self.messages.append(message)

    note = stage

    def iteration(self, iteration):
        pass

    def evaluated(self, env_steps, result):
        pass


class Parts:
    """A loop and what it works with."""

    def __init__(self, workspace, means, *, fresh=None, spread=1.0, **settings):
        defaults = {"evaluation_interval": 1000, "max_env_steps": 20_000, "patience": 2, "evaluation_episodes": 2}
        self.workspace, self.trainer, self.log, self.progress = workspace, Trainer(), Log(), Progress()
        self.evaluator = Evaluator(workspace, means, fresh, spread)
        config = TrainConfig(**(defaults | settings))
        self.loop = Loop(config, self.trainer, self.evaluator, self.log, workspace, self.progress)


@pytest.fixture
def workspace(tmp_path):
    return Workspace.create(tmp_path / "work")


def test_the_best_policy_is_exported_not_the_last(workspace):
    parts = Parts(workspace, {1000: 50.0, 2000: 120.0, 3000: 110.0, 4000: 90.0})
    best = parts.loop.run()
    assert (best.step, best.evaluation.mean) == (2000, 120.0)
    assert parts.evaluator.exported == ["2000"]


def test_it_stops_after_patience_evaluations_without_improvement(workspace):
    parts = Parts(workspace, {1000: 120.0, 2000: 119.0}, patience=3)
    parts.loop.run()
    assert parts.trainer.env_steps == 4000


def test_a_perfect_policy_at_the_target_stops_at_once(workspace):
    parts = Parts(workspace, {1000: 50.0, 2000: 120.0}, spread=0.0)
    assert parts.loop.run().step == 2000
    assert parts.trainer.env_steps == 2000


def test_short_of_the_target_it_trains_until_the_budget_is_spent_and_keeps_the_later_of_equal_policies(workspace):
    parts = Parts(workspace, {1000: 50.0, 2000: 60.0, 3000: 60.0, 4000: 10.0}, max_env_steps=5000)
    assert parts.loop.run().step == 3000
    assert parts.trainer.env_steps == 5000


def test_at_the_target_the_worse_of_two_evaluations_counts(workspace):
    parts = Parts(workspace, {1000: 120.0, 2000: 110.0}, fresh={1000: 80.0}, max_env_steps=4000)
    parts.loop.run()
    name = "evaluation/greedy_return_mean"
    logged = [metrics[name] for _, metrics in parts.log.metrics if name in metrics]
    assert logged[:2] == [80.0, 110.0]


def test_a_mean_that_is_no_number_is_never_the_best(workspace):
    parts = Parts(workspace, {1000: math.nan, 2000: 1.0, 3000: math.nan}, max_env_steps=3000)
    assert parts.loop.run().step == 2000


class FailsFirstFinal(Evaluator):
    """The first final evaluation is below the target."""

    def evaluate_bundle(self, step, first_seed):
        best = super().evaluate_bundle(step, first_seed)
        return best if len(self.final_seeds) > 1 else BestPolicy(self._evaluation(70.0, 0), step, best.recording)


def test_training_continues_when_the_final_evaluation_fails_and_uses_fresh_seeds_next(workspace):
    parts = Parts(workspace, {1000: 120.0, 2000: 119.0, 3000: 118.0, 4000: 117.0})
    parts.evaluator.__class__ = FailsFirstFinal
    best = parts.loop.run()
    assert best.evaluation.mean >= TARGET
    assert best.step == 4000
    assert parts.evaluator.final_seeds == [FINAL_SEED, FINAL_SEED + 2]
    assert any("fails on fresh episodes: 70.0" in message for message in parts.progress.messages)


def test_evaluations_are_the_interval_apart(workspace):
    parts = Parts(workspace, {1000: 1.0}, evaluation_interval=2500, max_env_steps=7000)
    parts.loop.run()
    evaluated = [step for step, metrics in parts.log.metrics if "evaluation/greedy_return_mean" in metrics]
    assert evaluated == [3000, 6000, 7000]


@pytest.mark.parametrize(("interval_s", "count"), [(0.0, 6), (1000.0, 1)])
def test_checkpoints_are_uploaded_once_per_interval_and_at_the_end(workspace, interval_s, count):
    parts = Parts(workspace, {1000: 1.0}, max_env_steps=6000, checkpoint_interval_s=interval_s)
    parts.loop.run()
    assert parts.log.keys.count("checkpoint") == count


def test_a_checkpoint_holds_the_newest_and_the_best_weights_and_the_state(workspace):
    parts = Parts(workspace, {1000: 120.0, 2000: 110.0})
    parts.loop.run()
    with tarfile.open(workspace.archive) as archive:
        content = {each.name: archive.extractfile(each).read() for each in archive if each.isfile()}
        assert archive.pax_headers == {"env_steps": "3000"}
    assert content["latest/weights"] == b"3000"
    assert content["checkpoint/weights"] == b"1000"
    assert json.loads(content["search.json"])["best_step"] == 1000


def interrupt(parts):
    """Run a loop that a signal reaches during its second iteration."""

    def during_iteration():
        if parts.trainer.env_steps == 2000:
            signal.raise_signal(signal.SIGTERM)

    parts.trainer.during_iteration = during_iteration
    with pytest.raises(Interrupted, match="SIGTERM"), interruptible():
        parts.loop.run()


def test_a_signal_finishes_the_iteration_and_uploads_a_checkpoint(workspace):
    parts = Parts(workspace, {1000: 1.0})
    interrupt(parts)
    assert (workspace.latest / "weights").read_text() == "2000"
    assert parts.log.keys[-2:] == ["checkpoint", "curve"]
    assert parts.progress.messages[-1] == "SIGTERM: uploading the checkpoint of 2,000 steps"
    assert not parts.evaluator.exported


def test_a_resumed_loop_continues_with_its_counters_and_its_best_policy(workspace):
    means = {1000: 120.0, 2000: 119.0, 3000: 118.0}
    interrupt(Parts(workspace, means))
    parts = Parts(workspace, means)
    parts.loop.resume()
    best = parts.loop.run()
    assert parts.progress.budgets == [(20_000, 2000)]
    assert parts.trainer.returns == [1000.0, 2000.0, 3000.0]
    assert (best.step, parts.trainer.env_steps) == (1000, 3000)


@pytest.mark.parametrize("budget", [2000, 20_000])
def test_an_evaluation_that_a_signal_interrupts_is_repeated_after_resuming(workspace, budget):
    means = {1000: 90.0, 2000: 120.0, 3000: 110.0}
    parts = Parts(workspace, means, max_env_steps=budget)
    evaluate = parts.evaluator.evaluate

    def interrupted(policy, first_seed):
        if policy == 2000:
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("the signal waited for the end of the evaluation")
        return evaluate(policy, first_seed)

    parts.evaluator.evaluate = interrupted
    with pytest.raises(Interrupted, match="SIGTERM"), interruptible():
        parts.loop.run()
    assert (workspace.latest / "weights").read_text() == "2000"
    parts = Parts(workspace, means, max_env_steps=budget)
    parts.loop.resume()
    assert parts.loop.run().step == 2000


def test_episodes_that_are_cut_are_noted_once(workspace):
    parts = Parts(workspace, {1000: 1.0}, max_env_steps=3000)
    evaluate = parts.evaluator.evaluate
    parts.evaluator.evaluate = lambda *arguments: dataclasses.replace(evaluate(*arguments), cut=1)
    parts.loop.run()
    assert sum("gymnasium.wrappers.TimeLimit" in message for message in parts.progress.messages) == 1


def test_without_resume_a_checkpoint_in_the_workspace_is_ignored(workspace):
    interrupt(Parts(workspace, {1000: 1.0}))
    parts = Parts(workspace, {1000: 120.0}, spread=0.0)
    parts.loop.run()
    assert parts.trainer.env_steps == 1000


def test_a_loop_that_resumes_after_its_last_iteration_only_exports(workspace):
    means = {1000: 120.0}
    Parts(workspace, means, spread=0.0).loop.run()
    parts = Parts(workspace, means, spread=0.0)
    parts.loop.resume()
    assert parts.loop.run().step == 1000
    assert parts.trainer.env_steps == 1000


def test_a_trial_trains_until_its_next_evaluation(workspace):
    parts = Parts(workspace, {1000: 50.0, 5000: 120.0}, evaluation_interval=2000, spread=0.0, max_env_steps=8000)
    parts.evaluator._means = {2000: 50.0, 4000: 60.0, 6000: 120.0}
    assert [parts.loop.train_until_evaluation().env_steps for _ in range(4)] == [2000, 4000, 6000, 6000]
    assert parts.loop.is_finished
    assert (workspace.latest / "weights").read_text() == "6000"


def test_iterations_without_samples_are_reported_and_not_logged(workspace):
    parts = Parts(workspace, {1000: 1.0}, max_env_steps=4000, num_env_runners=1)
    parts.trainer.lost_env_runners = iter([0, 1, 1, 0])
    parts.loop.run()
    steps = [step for step, metrics in parts.log.metrics if "train/entropy" in metrics]
    assert steps == [1000, 4000]
    lost = "1 of 1 environment runners lost; restarting them; until then iterations have no samples"
    assert [message for message in parts.progress.messages if "runners" in message] == [
        lost,
        "All environment runners are back",
    ]


def test_the_loop_knows_what_the_returns_did(workspace):
    parts = Parts(workspace, {step: step / 1000 for step in range(1000, 21_000, 1000)})
    parts.loop.run()
    assert parts.loop.trend == Trend.RISING
