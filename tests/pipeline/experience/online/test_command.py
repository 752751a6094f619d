from types import SimpleNamespace

import mlflow
import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.commands import experience_results
from pipeline.errors import Interrupted
from tests.pipeline.experience.recording import MODEL

HOUR = 3600

pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture
def shown(recorder, monkeypatch):
    """Return a function that runs `experience report` and returns its exit status and lines."""
    monkeypatch.setenv("COLUMNS", "120")

    def run(*options):
        result = CliRunner().invoke(cli, ["experience", "report", str(recorder.store.uri), *options])
        return result.exit_code, [" ".join(line.split()) for line in result.output.splitlines()]

    return run


def test_the_report_shows_each_version_and_where_the_run_is(recorder, shown):
    recorder.record((1, 2 * HOUR, 10.0), (2, 2 * HOUR, 20.0), (2, 3 * HOUR, 21.0))
    mlflow.MlflowClient().delete_model_version(MODEL, "1")
    status, lines = shown()
    assert status == 0
    header, first, second, where = [line for line in lines if not line.startswith("[")]
    assert header == "version episodes mean return mean length new points"
    assert first == "1 1 10.0 1.0 not registered"
    assert second == "2 2 20.5 1.0 2"
    assert where.startswith("Logged in run ")
    assert where.endswith("in MLflow 'online return of cartpole-ppo' of experiment 1.")


def test_a_description_without_place_for_the_link_is_noted(recorder, shown):
    mlflow.MlflowClient().update_registered_model(MODEL, "x" * 5000)
    recorder.record((1, 2 * HOUR, 10.0))
    assert "The description of the registered model is too long for a link to the run." in shown()[1]


def test_a_failure_of_mlflow_is_one_line(recorder, shown):
    recorder.record((1, 2 * HOUR, 10.0))
    mlflow.MlflowClient().delete_registered_model(MODEL)
    status, lines = shown()
    assert status == 1
    assert lines[-1].startswith("Error: There is no registered model 'cartpole-ppo' at sqlite:///")


def test_watching_shows_failures_and_goes_on_until_it_is_interrupted(recorder, shown, monkeypatch):
    recorder.record((1, 2 * HOUR, 10.0))
    description = mlflow.MlflowClient().get_registered_model(MODEL).description
    mlflow.MlflowClient().rename_registered_model(MODEL, "away")
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 1:
            mlflow.MlflowClient().rename_registered_model("away", MODEL)
        else:
            raise Interrupted("SIGINT")

    monkeypatch.setattr(experience_results, "time", SimpleNamespace(sleep=pause))  # other threads sleep, too
    status, lines = shown("--watch")
    assert status == 1
    assert pauses == [60.0, 60.0]
    assert any("Trying again in 60 s." in line for line in lines)
    assert "1 1 10.0 1.0 1" in lines
    assert lines[-1] == "Error: Interrupted by SIGINT."
    assert mlflow.MlflowClient().get_registered_model(MODEL).description.startswith(description)
