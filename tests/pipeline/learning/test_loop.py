"""A training from experience has a budget of its own, gives up early, and hands its best policy over to PPO."""

import json

import pytest

from pipeline.config import TrainConfig
from pipeline.errors import Interrupted
from pipeline.learning.loop import LearningLoop, steps_before_ppo
from pipeline.learning.settings import LearningSettings
from pipeline.signals import interruptible
from pipeline.training.run import Parts
from pipeline.training.workspace import Workspace
from tests.pipeline.training.test_loop import Evaluator, Log, Progress, Trainer

CONFIG = TrainConfig(evaluation_interval=1000, max_env_steps=3000, patience=2, evaluation_episodes=2)


class PhasedTrainer(Trainer):
    """Takes 1000 steps per iteration, first recorded ones; remembers what PPO began with."""

    before_ppo = None
    began_with = None

    def begin_ppo(self, steps):
        self.before_ppo = steps

    def restore(self, directory, env_steps, returns):
        if directory.name == "checkpoint":
            self.began_with = (directory / "weights").read_text()
        else:
            super().restore(directory, env_steps, returns)


class Case:
    """A loop over ten epochs of 1000 recorded steps, each of which is evaluated."""

    def __init__(self, workspace, means, **settings):
        self.trainer, self.progress = PhasedTrainer(), Progress()
        defaults = {"epochs": 10, "epochs_per_evaluation": 1}
        parts = Parts(CONFIG, self.trainer, Evaluator(workspace, means), Log(), workspace, self.progress)
        self.loop = LearningLoop(parts, self.trainer, LearningSettings("/data", **defaults | settings), 1000)


@pytest.fixture
def workspace(tmp_path):
    return Workspace.create(tmp_path / "work")


def test_it_gives_up_after_evaluations_without_improvement_though_the_target_is_not_reached(workspace):
    case = Case(workspace, {1000: 40.0, 2000: 60.0, 3000: 50.0})
    best = case.loop.run()
    assert (best.step, case.trainer.env_steps) == (2000, 4000)
    assert case.trainer.before_ppo is None
    stage = "Learning from experience for CartPole-v1: until a greedy return of 100, or 10,000 recorded steps"
    assert stage in case.progress.messages


def test_it_ends_with_its_budget_of_epochs(workspace):
    case = Case(workspace, {step: step / 1000 for step in range(1000, 9000, 1000)}, epochs=4)
    assert case.loop.run().step == 4000
    assert case.progress.budgets == [(4000, 0)]


def test_ppo_begins_with_the_best_policy_and_has_its_own_budget_after_the_recorded_steps(workspace):
    case = Case(
        workspace, {1000: 40.0, 2000: 60.0, 3000: 50.0, 4000: 50.0, 5000: 55.0, 6000: 70.0, 7000: 65.0}, then="ppo"
    )
    best = case.loop.run()
    assert (case.trainer.before_ppo, case.trainer.began_with) == (4000, "2000")
    assert (best.step, case.trainer.env_steps) == (6000, 7000)
    assert case.progress.budgets == [(10_000, 0), (7000, 4000)]


def test_a_worse_policy_of_ppo_does_not_replace_what_was_learned(workspace):
    case = Case(workspace, {1000: 40.0, 2000: 60.0, 3000: 50.0}, then="ppo")
    assert case.loop.run().step == 2000
    assert case.trainer.env_steps == 7000


@pytest.mark.parametrize(("iteration", "phase"), [(2000, None), (5000, 4000)])
def test_it_is_resumed_in_the_phase_in_which_it_was_interrupted(workspace, iteration, phase):
    means = {1000: 40.0, 2000: 60.0, 3000: 50.0, 4000: 50.0, 5000: 55.0, 6000: 70.0, 7000: 65.0}

    def interrupt():
        if case.trainer.env_steps == iteration:
            raise Interrupted("SIGINT")

    case = Case(workspace, means, then="ppo")
    case.trainer.during_iteration = interrupt
    with pytest.raises(Interrupted), interruptible():
        case.loop.run()
    (workspace.latest / "weights").write_text(
        str(json.loads((workspace.bundle / "search.json").read_text())["env_steps"])
    )
    assert steps_before_ppo(workspace) == phase
    case = Case(workspace, means, then="ppo")
    case.loop.resume()
    assert case.trainer.before_ppo == phase
    assert case.loop.run().step == 6000


def test_a_perfect_policy_is_not_trained_on(workspace):
    case = Case(workspace, {1000: 120.0}, then="ppo")
    case.loop._parts.evaluator._spread = 0.0
    assert case.loop.run().step == 1000
    assert case.trainer.env_steps == 1000
