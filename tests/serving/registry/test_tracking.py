import os
from pathlib import Path

import pytest

from serving.registry import tracking


@pytest.fixture(autouse=True)
def _the_variable_decides() -> None:
    """Take back what an earlier test in this process told MLflow, which comes before the variable."""
    import mlflow

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
