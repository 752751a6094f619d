"""A trial trains until its next evaluation in each step, and resumes only if its plan says so."""

import pytest

from pipeline.config import TrainConfig
from pipeline.training.workspace import Workspace
from pipeline.tuning.trial import ENV_STEPS, REPORT, PolicyTrial, TrialPlan

SETTINGS = {
    "max_env_steps": 256,
    "train_batch_size_per_learner": 128,
    "minibatch_size": 64,
    "num_epochs": 1,
    "evaluation_interval": 128,
    "evaluation_episodes": 2,
    "num_envs_per_env_runner": 2,
}


def trial_config(directory, *, resumes=False):
    return {"trial": TrialPlan(1, TrainConfig(**SETTINGS), Workspace(directory), resumes).as_content()}


@pytest.fixture
def trial(tmp_path):
    Workspace.create(tmp_path)
    trial = PolicyTrial(trial_config(tmp_path))
    yield trial
    trial.stop()


def test_each_step_reports_an_evaluation_until_the_budget_is_spent(trial, tmp_path):
    first = trial.step()
    assert not first["done"]
    (report,) = first[REPORT]
    assert report["env_steps"] == first[ENV_STEPS] < 256
    assert {"train/entropy", "evaluation/greedy_return_mean"} <= {
        name for *_, each in report["metrics"] for name in each
    }
    second = trial.step()
    assert second["done"]
    assert second[REPORT][0]["is_finished"]
    trial.reset_config(trial_config(tmp_path, resumes=True))
    assert trial.step()[ENV_STEPS] == second[ENV_STEPS], "a resumed trial has spent its budget"
    trial.reset_config(trial_config(tmp_path))
    assert trial.step()[ENV_STEPS] == first[ENV_STEPS], "a new trial starts again"


def test_a_return_that_is_not_finite_fails_the_trial(trial):
    trial._loop._evaluations = lambda: (NotFinite, NotFinite)
    with pytest.raises(ValueError, match="the greedy return is nan, expected a finite number"):
        trial.step()


class NotFinite:
    """An evaluation of an environment whose rewards are not numbers."""

    mean = float("nan")
    notice = None
    is_constant = False
