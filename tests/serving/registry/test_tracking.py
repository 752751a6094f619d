import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.registry import tracking
from serving.registry.errors import TrackingServerUnreachable


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


def test_a_database_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////nowhere/mlflow.db")
    tracking.check_tracking_server()


def test_the_error_of_a_server_that_is_down_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with pytest.raises(TrackingServerUnreachable) as caught:
        tracking.check_tracking_server()
    assert str(caught.value) == (
        "no MLflow server answers at http://127.0.0.1:1 (connection refused). Start it, or set MLFLOW_TRACKING_URI "
        "to the URI of another one"
    )


def test_a_server_that_hangs_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "HEALTH_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{listener.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(TrackingServerUnreachable, match=r"no answer within 0\.2 s"):
            tracking.check_tracking_server()
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("status", [200, 500])
def test_a_server_is_healthy_if_its_health_route_answers_200(
    status: int, serve_http: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        assert scope["path"] == "/health"
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    monkeypatch.setenv("MLFLOW_TRACKING_URI", serve_http(app))
    if status == 200:
        tracking.check_tracking_server()
        return
    with pytest.raises(TrackingServerUnreachable, match="its /health answers with status 500"):
        tracking.check_tracking_server()


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
