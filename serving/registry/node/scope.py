"""Identifies what an application serves, so that two applications or teams on one node never share its state."""

import hashlib
import json
import os

from serving.errors import redacted


def scope(registry: str, model_uri: str, application: str | None) -> str:
    """Return a name for files: a hash of the registry, its workspace, the application's name and its model URI.

    Args:
        registry: the tracking URI. MLFLOW_REGISTRY_URI, if set, takes its place. A new password changes nothing.
        model_uri: the `models:/` URI that the application serves.
        application: the name of the application; None outside of Serve.
    """
    uri = os.environ.get("MLFLOW_REGISTRY_URI") or registry
    workspace = os.environ.get("MLFLOW_WORKSPACE", "").strip()
    parts = redacted(uri), workspace, application or "", model_uri
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
