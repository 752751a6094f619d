"""A search ends with the best trial, or with a reason why there is none; a signal ends its trials resumably."""

import signal

import mlflow
import pytest

from pipeline.config import TrainConfig
from pipeline.errors import Interrupted
from pipeline.signals import interruptible
from pipeline.tracking import run as tracking
from pipeline.tuning import ray_tune
from pipeline.tuning import run as tuning_run
from pipeline.tuning.errors import NothingFound
from pipeline.tuning.run import SearchLimits
from pipeline.tuning.search_space import SearchSpace


class Ray:
    """A session that starts nothing."""

    def start(self, config, num_trials):
        self.started = (config, num_trials)

    def wait_until_ready(self):
        pass

    def stop(self):
        pass


class Progress:
    """Keeps the messages of a search."""

    def __init__(self):
        self.messages = []

    def note(self, message):
        self.messages.append(message)

    def trials(self, statuses):
        pass

    def changed(self, status):
        pass


@pytest.fixture
def search(store, monkeypatch):  # noqa: ARG001  # its runs are in the store
    """Run a search of two trials, whose processes are replaced by a function; its progress is an attribute."""
    monkeypatch.setattr(tuning_run.preflight, "export", lambda _: None)

    def search(trials, limits=SearchLimits(max_concurrent=1)):  # noqa: B008  # it is frozen
        monkeypatch.setattr(ray_tune, "run", trials)
        search.progress = Progress()
        space = SearchSpace.of({"search": {"lr": [1e-3, 3e-3]}})
        with interruptible():
            tuning_run.tune(space, 2, limits, search.progress, Ray())

    return search


def parent_and_children():
    runs = mlflow.search_runs(["0"], output_format="list")
    (parent,) = [run for run in runs if run.info.run_name == "tune"]
    return parent, [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]


def test_if_all_trials_fail_the_error_names_the_runs_with_the_reasons(search):
    def fail(plans, directory, max_concurrent, listener, should_stop):  # noqa: ARG001
        for plan in plans:
            listener.failed(plan.number, "ValueError: no")

    with pytest.raises(NothingFound) as caught:
        search(fail)
    parent, children = parent_and_children()
    assert str(caught.value) == (
        "None of 2 trials was evaluated, 2 failed; nothing was registered. "
        f"The child runs of {parent.info.run_id} carry the reasons in the tag 'trial.error'."
    )
    assert {run.info.status for run in (parent, *children)} == {"FAILED"}
    assert not any("To resume" in message for message in search.progress.messages), "no trial is left to run"


def test_if_the_time_is_up_before_the_first_evaluation_the_error_says_so(search):
    def wait(plans, directory, max_concurrent, listener, should_stop):  # noqa: ARG001
        listener.started(1)
        assert should_stop()

    with pytest.raises(NothingFound, match=r"raise --time-budget-s\."):
        search(wait, SearchLimits(time_budget_s=-1.0))
    _, (child,) = parent_and_children()
    assert child.info.status == "FINISHED"


def test_a_signal_ends_the_running_trials_as_killed_and_shows_how_to_resume(search):
    def interrupt(plans, directory, max_concurrent, listener, should_stop):  # noqa: ARG001
        listener.started(1)
        assert not should_stop()
        signal.raise_signal(signal.SIGINT)
        assert should_stop()

    with pytest.raises(Interrupted, match="SIGINT"):
        search(interrupt)
    parent, children = parent_and_children()
    assert {run.info.status for run in (parent, *children)} == {"KILLED"}
    assert tracking.load(parent.info.run_id, tracking.SEARCH_FILE)["num_trials"] == 2
    assert search.progress.messages[-1] == f"To resume: python -m pipeline tune --resume {parent.info.run_id}"


def test_an_error_of_ray_tune_leaves_no_trial_running_and_shows_how_to_resume(search):
    def fail(plans, directory, max_concurrent, listener, should_stop):  # noqa: ARG001
        listener.started(1)
        raise RuntimeError("Tune has lost its way")

    with pytest.raises(RuntimeError, match="lost its way"):
        search(fail)
    parent, (child,) = parent_and_children()
    assert (parent.info.status, child.info.status) == ("FAILED", "KILLED")
    assert search.progress.messages[-1] == f"To resume: python -m pipeline tune --resume {parent.info.run_id}"


def test_a_signal_while_the_best_policy_is_registered_shows_how_to_resume(search, monkeypatch):
    def train(plans, directory, max_concurrent, listener, should_stop):  # noqa: ARG001
        listener.started(1)
        listener._statuses[1].best_mean = 1.0
        listener.ended(1, is_finished=True)

    monkeypatch.setattr(
        tuning_run.checkpoint_store, "restore_newest", lambda *_, **__: signal.raise_signal(signal.SIGTERM)
    )
    with pytest.raises(Interrupted, match="SIGTERM"):
        search(train)
    parent, (child,) = parent_and_children()
    assert (parent.info.status, child.info.status) == ("KILLED", "FINISHED")
    assert search.progress.messages[-1] == f"To resume: python -m pipeline tune --resume {parent.info.run_id}"


def test_trials_that_ended_are_not_run_again(search, monkeypatch):
    def interrupt_after_the_first(plans, directory, max_concurrent, listener, should_stop):  # noqa: ARG001
        listener.started(1)
        plans[0].workspace.archive.touch()
        listener.failed(1, "ValueError: no")
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        search(interrupt_after_the_first)
    parent, _ = parent_and_children()
    planned = []
    monkeypatch.setattr(ray_tune, "run", lambda plans, *_: planned.extend(plans))
    with pytest.raises(NothingFound):
        tuning_run.resume(parent.info.run_id, SearchLimits(), Progress(), Ray())
    assert [(plan.number, plan.resumes) for plan in planned] == [(2, False)]


@pytest.mark.parametrize(("settings", "expected"), [({}, 4), ({"num_env_runners": 1}, 2), ({"num_env_runners": 9}, 1)])
def test_without_a_limit_as_many_trials_run_as_the_cores_allow(monkeypatch, settings, expected):
    monkeypatch.setattr(tuning_run, "available_cpus", lambda: 4)
    assert SearchLimits().concurrency(TrainConfig(**settings)) == expected
    assert SearchLimits(max_concurrent=3).concurrency(TrainConfig(**settings)) == 3
