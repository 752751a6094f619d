"""MLflow's tracking server or store: its URI, the bounds of requests to it, and a health check."""

import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.registry.errors import ArtifactsBehindServer, TrackingServerUnreachable

HEALTH_TIMEOUT_S = 3.0

MAX_RETRIES, TIMEOUT_S = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"
REQUEST_BOUNDS = {MAX_RETRIES: "1", TIMEOUT_S: "5"}
"""MLflow's defaults, 7 retries of 120 s each, wait a quarter of an hour for a server that hangs."""


def tracking_uri() -> str:
    """Return MLflow's tracking URI, absolute: it refers to the same store from every working directory."""
    named = os.environ.get("MLFLOW_TRACKING_URI")
    if named and "mlflow" not in sys.modules:  # MLflow would return the same, after an import of two seconds
        return absolute_uri(named)
    import mlflow

    return absolute_uri(mlflow.get_tracking_uri())


def bound_requests() -> None:
    """Bound the time that MLflow waits for a server in this process. Values that the user has set stay."""
    for name, bound in REQUEST_BOUNDS.items():
        os.environ.setdefault(name, bound)


class _Bounds:
    """How many contexts of `bounded_retries` are open in this process, whose variables all of its threads share."""

    lock = threading.Lock()
    open = 0


@contextmanager
def bounded_retries() -> Iterator[None]:
    """Bound the number of MLflow's retries within the context, unless the user has set it.

    The contexts of several threads may overlap in any way; the bound holds until the last one ends.
    """
    with _Bounds.lock:
        if not _Bounds.open and MAX_RETRIES in os.environ:
            is_users = True
        else:
            is_users = False
            _Bounds.open += 1
            os.environ[MAX_RETRIES] = REQUEST_BOUNDS[MAX_RETRIES]
    try:
        yield
    finally:
        with _Bounds.lock:
            if not is_users:
                _Bounds.open -= 1
                if not _Bounds.open:
                    os.environ.pop(MAX_RETRIES, None)


@contextmanager
def stage_warnings_ignored() -> Iterator[None]:
    """Ignore the FutureWarning of each call about stages, which are deprecated but work throughout MLflow 3."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def is_remote(uri: str) -> bool:
    """Return whether the URI is that of a server. MLflow opens databases and folders in this process."""
    return uri.startswith(("http://", "https://", "databricks", "uc:"))


def absolute_uri(uri: str) -> str:
    """Return a store's URI with an absolute path, if it has a path."""
    if is_remote(uri):
        return uri
    scheme, separator, path = uri.partition(":///")
    if scheme.startswith("sqlite") and separator and path and not path.startswith(("/", ":memory:")):
        return f"{scheme}:///{Path(path).resolve()}"
    return uri if "://" in uri or ":/" in uri else Path(uri).resolve().as_uri()


def check_artifact_uri(artifact_uri: str) -> None:
    """Check that this process can reach the artifacts of a run or version, wherever MLflow keeps them.

    Raises:
        ArtifactsBehindServer: they are reached through an MLflow server only, and the tracking URI is a database's.
    """
    if artifact_uri.startswith("mlflow-artifacts:") and not is_remote(tracking_uri()):
        raise ArtifactsBehindServer


def check_tracking_server() -> None:
    """Check that the tracking server is healthy, in one request, because MLflow would retry for minutes.

    Databases and folders are not checked.

    Raises:
        TrackingServerUnreachable: no healthy server answers within 3 seconds.
    """
    uri = tracking_uri()
    if not uri.startswith(("http://", "https://")):
        return
    import requests

    try:
        answer = requests.get(f"{uri.rstrip('/')}/health", timeout=HEALTH_TIMEOUT_S)
    except requests.Timeout as error:
        raise TrackingServerUnreachable(uri, f"no answer within {HEALTH_TIMEOUT_S:g} s") from error
    except requests.RequestException as error:
        reason = "connection refused" if "refused" in str(error) else type(error).__name__
        raise TrackingServerUnreachable(uri, reason) from error
    if not answer.ok:
        raise TrackingServerUnreachable(uri, f"its /health answers with status {answer.status_code}")
