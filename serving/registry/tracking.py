"""The tracking server or store that MLflow talks to: which one, and whether it answers."""

import os
import sys
from pathlib import Path

from serving.registry.errors import TrackingServerUnreachable

PROBE_TIMEOUT_S = 3.0

BOUNDS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
"""Of MLflow's own 7 retries of 120 s each, a server that hangs would take a quarter of an hour."""


def tracking_uri() -> str:
    """Return MLflow's tracking URI, absolute: it names the same store from every working directory."""
    named = os.environ.get("MLFLOW_TRACKING_URI")
    if named and "mlflow" not in sys.modules:  # which would say the same, two seconds later
        return absolute_uri(named)
    import mlflow

    return absolute_uri(mlflow.get_tracking_uri())


def set_tracking_uri(uri: str) -> None:
    """Make `uri` the tracking store, and so the registry, of this process."""
    import mlflow

    mlflow.set_tracking_uri(uri)


def bound_requests() -> None:
    """Bound what this process's MLflow spends on a server that doesn't answer. What the user has set stays."""
    for name, bound in BOUNDS.items():
        os.environ.setdefault(name, bound)


def is_remote(uri: str) -> bool:
    """Return whether a server stands behind the URI; else MLflow opens a database or a folder itself."""
    return uri.startswith(("http://", "https://", "databricks", "uc:"))


def absolute_uri(uri: str) -> str:
    """Return a store's URI with its path absolute, where it is a path."""
    scheme, separator, path = uri.partition(":///")
    if scheme.startswith("sqlite") and separator and path and not path.startswith(("/", ":memory:")):
        return f"{scheme}:///{Path(path).resolve()}"
    return uri if "://" in uri or ":/" in uri else Path(uri).resolve().as_uri()


def check_tracking_server() -> None:
    """Probe the tracking server once, where the tracking URI names one.

    MLflow's own retries would go on for minutes. A database or a folder is not probed.

    Raises:
        TrackingServerUnreachable: nothing healthy answers within about 3 seconds.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri.startswith(("http://", "https://")):
        uri = tracking_uri()
    if not uri.startswith(("http://", "https://")):
        return
    import requests

    try:
        answer = requests.get(f"{uri.rstrip('/')}/health", timeout=PROBE_TIMEOUT_S)
    except requests.RequestException as error:
        raise TrackingServerUnreachable(uri, _reason(error)) from error
    if not answer.ok:
        raise TrackingServerUnreachable(uri, f"its /health says {answer.status_code}")


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.Timeout):
        return f"no answer within {PROBE_TIMEOUT_S:g} s"
    return "connection refused" if "refused" in str(error) else type(error).__name__
