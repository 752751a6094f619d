import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.processes import child_environment
from serving.registry import tracking


@pytest.fixture(autouse=True)
def _the_variable_decides() -> Iterator[None]:
    """Take back what a test in this process told MLflow, which comes before the variable."""
    import mlflow

    mlflow.set_tracking_uri(None)
    yield
    mlflow.set_tracking_uri(None)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sqlite:///mlflow.db", "sqlite:///{cwd}/mlflow.db"),
        ("sqlite:////var/mlflow.db", "sqlite:////var/mlflow.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("postgresql://db/mlflow", "postgresql://db/mlflow"),
        ("databricks", "databricks"),
        ("databricks-uc://profile", "databricks-uc://profile"),
        ("mlruns", "file://{cwd}/mlruns"),
    ],
)
def test_the_path_of_a_uri_is_made_absolute(
    uri: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tracking.absolute_uri(uri) == expected.format(cwd=tmp_path)


def test_the_registry_is_at_the_tracking_uri_unless_another_one_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "")
    assert tracking.registry_uri() == "http://tracking"
    tracking.use(None, "http://registry", "team")
    assert (tracking.tracking_uri(), tracking.registry_uri()) == ("http://tracking", "http://registry")
    assert os.environ["MLFLOW_WORKSPACE"] == "team"
    tracking.use("http://another")
    assert (tracking.tracking_uri(), tracking.registry_uri()) == ("http://another", "http://registry")


def test_a_registry_uri_without_credentials_keeps_those_of_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "https://robot:secret@registry/x")
    tracking.use(None, "https://registry/x")
    assert os.environ["MLFLOW_REGISTRY_URI"] == "https://robot:secret@registry/x"
    tracking.use(None, "https://another/x")
    assert os.environ["MLFLOW_REGISTRY_URI"] == "https://another/x"


def test_the_uris_are_known_without_mlflow() -> None:
    script = "from serving.registry.tracking import *; import sys; print(registry_uri(), 'mlflow' in sys.modules)"
    variables = {"MLFLOW_TRACKING_URI": "http://tracking", "MLFLOW_REGISTRY_URI": "sqlite:////var/registry.db"}
    shown = subprocess.check_output([sys.executable, "-c", script], env=child_environment(**variables), text=True)
    assert shown.split() == ["sqlite:////var/registry.db", "False"]


def test_requests_are_bounded_unless_the_user_has_set_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tracking.TIMEOUT_S, raising=False)
    monkeypatch.setenv(tracking.MAX_RETRIES, "7")
    tracking.bound_requests()
    assert (os.environ[tracking.MAX_RETRIES], os.environ[tracking.TIMEOUT_S]) == ("7", "5")


def test_overlapping_contexts_bound_retries_until_the_last_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tracking.MAX_RETRIES, raising=False)
    first, second = tracking.bounded_retries(), tracking.bounded_retries()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert os.environ[tracking.MAX_RETRIES] == "1"
    second.__exit__(None, None, None)
    assert tracking.MAX_RETRIES not in os.environ


def test_retries_are_bounded_within_the_context_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tracking.MAX_RETRIES, raising=False)
    with tracking.bounded_retries():
        assert os.environ[tracking.MAX_RETRIES] == "1"
    assert tracking.MAX_RETRIES not in os.environ
    monkeypatch.setenv(tracking.MAX_RETRIES, "7")
    with tracking.bounded_retries():
        assert os.environ[tracking.MAX_RETRIES] == "7"
