"""Each trial is a child run in MLflow, which a resumed search reads again."""

import contextlib

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from pipeline.config import TrainConfig
from pipeline.errors import Interrupted
from pipeline.tracking import checkpoint_store
from pipeline.tracking import run as tracking
from pipeline.tracking.errors import TrackingRefused
from pipeline.training.workspace import Workspace
from pipeline.tuning import trial_runs
from pipeline.tuning.trial import TrialPlan, TrialReport
from pipeline.tuning.trial_runs import TrialRuns
from pipeline.tuning.trial_status import TrialState, TrialStatus

METRICS = [(1_700_000_000_000, 1000, {"train/entropy": 0.5})]


@pytest.fixture
def parent(store):  # noqa: ARG001  # the run is in the store
    with tracking.run("tune") as run_id:
        yield run_id


class Search:
    """Two trials with workspaces, the runs that are written for them, and the progress that is shown."""

    def __init__(self, parent, directory):
        self.statuses = [TrialStatus(number, {"lr": number / 10}) for number in (1, 2)]
        self.notices, self.changes = [], []
        plans = [self._plan(number, directory) for number in (1, 2)]
        self.runs = TrialRuns(parent, self.statuses, plans, progress=self)

    def note(self, message):
        self.notices.append(message)

    def changed(self, status):
        self.changes.append(status)

    def _plan(self, number, directory):
        workspace = Workspace.create(directory / str(number))
        (workspace.bundle / "weights").write_text(str(number))
        checkpoint_store.pack(workspace.bundle, workspace.archive, 1000)
        return TrialPlan(number, TrainConfig(lr=number / 10), workspace, resumes=False)

    def run(self, number):
        return mlflow.get_run(self.statuses[number - 1].run_id)


@pytest.fixture
def search(parent, tmp_path):
    return Search(parent, tmp_path / "trials")


def report(best_mean=50.0):
    return TrialReport(1000, best_mean, 1000, best_perfect=False, is_finished=False, metrics=METRICS)


def test_a_trial_that_finishes_has_its_settings_metrics_and_checkpoint(search, tmp_path):
    search.runs.started(1)
    assert search.run(1).info.status == "RUNNING"
    search.runs.reported(1, report())
    search.runs.ended(1, is_finished=True)
    run = search.run(1)
    assert run.info.status == "FINISHED"
    assert (run.data.params["lr"], run.data.tags["trial.number"]) == ("0.1", "1")
    (point,) = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train/entropy")
    assert (point.timestamp, point.step, point.value) == (1_700_000_000_000, 1000, 0.5)
    assert checkpoint_store.restore_newest(run.info.run_id, tmp_path / "back") == 1000
    assert TrialStatus.from_tag(run.data.tags["trial.standing"]) == search.statuses[0]


def test_a_trial_that_the_scheduler_stops_is_finished_too(search):
    search.runs.started(1)
    search.runs.ended(1, is_finished=False)
    assert search.run(1).info.status == "FINISHED"
    assert search.statuses[0].state == TrialState.STOPPED_EARLY


def test_a_trial_that_fails_before_its_process_starts_is_a_failed_run_with_the_reason(search):
    search.runs.failed(2, "ValueError: no such activation")
    run = search.run(2)
    assert run.info.status == "FAILED"
    assert run.data.tags["trial.error"] == "ValueError: no such activation"
    assert search.notices == ["Trial 2 failed: ValueError: no such activation"]


@pytest.mark.parametrize(
    ("state", "status"), [(TrialState.INTERRUPTED, "KILLED"), (TrialState.OUT_OF_TIME, "FINISHED")]
)
def test_running_trials_end_with_the_search(search, state, status):
    search.runs.started(1)
    search.runs.started(2)
    search.runs.ended(2, is_finished=True)
    search.runs.end_remaining(state)
    assert search.run(1).info.status == status
    assert search.statuses[1].state == TrialState.FINISHED


def refuse(status):
    """Return a function that raises as MLflow's client does when it receives this status."""

    def call(*_, **__):
        raise MlflowException(f"API request to endpoint /a failed with error code {status} != 200. Response body: ''")

    return call


def test_a_checkpoint_that_is_refused_is_kept_and_the_trial_can_still_be_registered(search, monkeypatch, tmp_path):
    search.runs.started(1)
    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "log_artifact", refuse(413))
        search.runs.reported(1, report())
        search.runs.ended(1, is_finished=True)
    run_id = search.run(1).info.run_id
    refused, kept = search.notices
    assert refused.startswith("MLflow does not accept the checkpoint of 1,000 steps, ")
    assert kept.endswith(f"of 1,000 steps, was not uploaded. Resume where it is: {tmp_path}/checkpoint-{run_id}.tar")
    assert search.run(1).info.status == "FINISHED"
    assert checkpoint_store.restore_newest(run_id, tmp_path / "back") == 1000


@pytest.mark.parametrize("state", [TrialState.INTERRUPTED, TrialState.OUT_OF_TIME])
def test_trials_whose_metrics_are_refused_do_not_stay_running(search, monkeypatch, state):
    for number in (1, 2):
        search.runs.started(number)
    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", refuse(403))
    search.runs.reported(1, report())
    with pytest.raises(TrackingRefused) if state == TrialState.OUT_OF_TIME else contextlib.nullcontext():
        search.runs.end_remaining(state)
    assert search.run(1).info.status == "KILLED"
    assert search.run(2).info.status == ("KILLED" if state == TrialState.INTERRUPTED else "FINISHED")


def test_a_second_signal_leaves_no_trial_running(search, monkeypatch):
    for number in (1, 2):
        search.runs.started(number)

    def flush(_self, _timeout_s):
        raise Interrupted("SIGINT")

    monkeypatch.setattr(trial_runs.MetricQueue, "flush", flush)
    with pytest.raises(Interrupted):
        search.runs.end_remaining(TrialState.INTERRUPTED)
    assert {search.run(number).info.status for number in (1, 2)} == {"KILLED"}


def test_a_resumed_search_keeps_ended_trials_and_continues_the_runs_of_the_others(search, parent, tmp_path):
    search.runs.started(1)
    search.runs.reported(1, report(best_mean=70.0))
    search.runs.ended(1, is_finished=True)
    search.runs.started(2)
    search.runs.end_remaining(TrialState.INTERRUPTED)
    resumed = Search(parent, tmp_path / "resumed")
    trial_runs.read(parent, resumed.statuses)
    first, second = resumed.statuses
    assert (first.state, first.best_mean) == (TrialState.FINISHED, 70.0)
    assert (second.state, second.run_id) == (TrialState.WAITING, search.statuses[1].run_id)
    resumed.runs.started(2)
    assert resumed.run(2).info.status == "RUNNING"
    resumed.runs.ended(2, is_finished=True)
    assert len(tracking.children(parent)) == 2
