import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.registry import registry, tracking
from serving.registry.errors import TrackingServerUnreachable


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sqlite:///mlflow.db", "sqlite:///{cwd}/mlflow.db"),
        ("sqlite:////var/mlflow.db", "sqlite:////var/mlflow.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("postgresql://db/mlflow", "postgresql://db/mlflow"),
        ("mlruns", "file://{cwd}/mlruns"),
    ],
)
def test_a_uri_is_made_to_mean_the_same_everywhere(
    uri: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tracking.absolute_uri(uri) == expected.format(cwd=tmp_path)


def test_a_database_is_not_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////nowhere/mlflow.db")
    registry.check_tracking_server()


def test_a_server_that_is_down_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with pytest.raises(TrackingServerUnreachable) as caught:
        registry.check_tracking_server()
    assert str(caught.value) == (
        "no MLflow server answers at http://127.0.0.1:1 (connection refused). Start it, or set MLFLOW_TRACKING_URI "
        "to the one you mean"
    )


def test_a_server_that_hangs_is_given_up_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "PROBE_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{listener.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(TrackingServerUnreachable, match=r"no answer within 0\.2 s"):
            registry.check_tracking_server()
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("status", [200, 500])
def test_a_server_is_healthy_when_it_says_so(
    status: int, serve_http: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        assert scope["path"] == "/health"
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    monkeypatch.setenv("MLFLOW_TRACKING_URI", serve_http(app))
    if status == 200:
        registry.check_tracking_server()
        return
    with pytest.raises(TrackingServerUnreachable, match="its /health says 500"):
        registry.check_tracking_server()
