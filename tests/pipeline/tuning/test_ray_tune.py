"""Tune's events reach the runs of the trials, and each trial reserves the processors that its training needs."""

from types import SimpleNamespace

import pytest

from pipeline.config import TrainConfig
from pipeline.tuning import ray_tune
from pipeline.tuning.trial import REPORT, TrialReport


def bundles(**settings):
    return ray_tune._resources(TrainConfig(**settings)).bundles


def test_a_trial_reserves_one_cpu_for_itself_and_one_for_each_remote_process():
    assert bundles() == [{"CPU": 1.0}]
    assert bundles(num_env_runners=2, num_learners=1) == [{"CPU": 1.0}] * 4


def test_a_learner_with_a_gpu_reserves_no_cpu():
    assert bundles(num_learners=1, num_gpus_per_learner=0.5) == [{"CPU": 1.0}, {"GPU": 0.5}]
    assert bundles(num_gpus_per_learner=1.0) == [{"CPU": 1.0, "GPU": 1.0}]


@pytest.mark.parametrize(("interval", "budget", "first"), [(1000, 90_000, 10_000), (20_000, 90_000, 20_000)])
def test_the_first_rung_is_a_ninth_of_the_budget_and_not_before_an_evaluation(interval, budget, first):
    scheduler = ray_tune._scheduler(TrainConfig(evaluation_interval=interval, max_env_steps=budget))
    (bracket,) = scheduler._brackets
    assert min(milestone for milestone, _ in bracket._rungs) == first


class Runs:
    """Keeps the events of trials."""

    def __init__(self):
        self.events = []

    def started(self, number):
        self.events.append(("started", number))

    def reported(self, number, report):
        self.events.append(("reported", number, report.best_mean))

    def ended(self, number, *, is_finished):
        self.events.append(("ended", number, is_finished))

    def failed(self, number, reason):
        self.events.append(("failed", number, reason))


def test_the_run_of_a_trial_receives_its_events(tmp_path):
    error = tmp_path / "error.txt"
    error.write_text("Traceback (most recent call last):\n  ...\nValueError: no\n\n")
    report = TrialReport(1000, 50.0, 1000, best_perfect=False, is_finished=True, metrics=[])
    result = {REPORT: [vars(report)]}
    trial = SimpleNamespace(config={"trial": {"number": 3}}, last_result=result, error_file=str(error))
    runs = Runs()
    callback = ray_tune._Callback(runs)
    callback.on_trial_start(iteration=0, trials=[], trial=trial)
    callback.on_trial_result(iteration=0, trials=[], trial=trial, result=result)
    callback.on_trial_complete(iteration=0, trials=[], trial=trial)
    callback.on_trial_error(iteration=0, trials=[], trial=trial)
    expected = [("started", 3), ("reported", 3, 50.0), ("ended", 3, True), ("failed", 3, "ValueError: no")]
    assert runs.events == expected


def test_a_trial_without_a_traceback_died():
    assert ray_tune._reason(None) == "its process died."
