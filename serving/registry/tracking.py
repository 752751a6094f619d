"""MLflow's servers or stores, for tracking and for the registry: their URIs, the bounds of requests, and the probes."""

import functools
import gc
import importlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from serving.registry.errors import ArtifactsBehindServer, PackageMissing
from serving.registry.mlflow_api import check_database, check_server
from serving.uri_secrets import with_own_secrets

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
"""The schemes of the databases that MLflow opens in this process."""

OBJECT_STORES = {
    "s3": ("boto3", "'cartpole-ppo[s3]'"),
    "gs": ("google.cloud.storage", "google-cloud-storage"),
    "wasbs": ("azure.storage.blob", "azure-storage-blob"),
    "abfss": ("azure.storage.filedatalake", "azure-storage-file-datalake"),
}
"""The module through which MLflow reaches an artifact store, by the scheme of its URI, and the package to install."""

TRACKING_URI, REGISTRY_URI, WORKSPACE = "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_WORKSPACE"
"""MLflow's variables, which processes inherit."""

MAX_RETRIES, TIMEOUT_S = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"
REQUEST_BOUNDS = {MAX_RETRIES: "1", TIMEOUT_S: "5"}
"""MLflow's defaults, 7 retries of 120 s each, wait a quarter of an hour for a server that hangs."""

COMMAND_BOUNDS = {MAX_RETRIES: "3", TIMEOUT_S: "10"}
"""For a command at whose end nobody waits: it outlasts a restart of the server, and ends within a minute otherwise."""


def import_mlflow() -> None:
    """Import MLflow, without garbage collection, which would take a quarter of that time.

    For a failing database MLflow logs tracebacks of a hundred lines, and raises an exception as well: that is enough.
    """
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    if "mlflow" in sys.modules:
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        import mlflow.artifacts  # noqa: F401
    finally:
        if was_enabled:
            gc.enable()


def use(uri: str | None, registry_uri: str | None = None, workspace: str | None = None) -> None:
    """Make these the tracking URI, the registry URI and the workspace of this process and of those that it starts.

    What is None stays as it is. The secrets of a registry URI that is set already are kept. MLflow is not imported;
    once it is, only its tracking URI may differ from the variable.
    """
    if registry_uri is not None:
        registry_uri = with_own_secrets(registry_uri, REGISTRY_URI)
    settings = {TRACKING_URI: uri, REGISTRY_URI: registry_uri, WORKSPACE: workspace}
    os.environ.update({name: value for name, value in settings.items() if value is not None})
    if uri is not None and "mlflow" in sys.modules:
        import mlflow

        mlflow.set_tracking_uri(uri)


def tracking_uri() -> str:
    """Return MLflow's tracking URI, absolute: it refers to the same store from every working directory."""
    named = os.environ.get(TRACKING_URI)
    if named and "mlflow" not in sys.modules:  # MLflow would return the same, after an import of two seconds
        return absolute_uri(named)
    import mlflow

    return absolute_uri(mlflow.get_tracking_uri())


def registry_uri() -> str:
    """Return the absolute URI of MLflow's model registry, which is the tracking URI unless another one is set."""
    if "mlflow" not in sys.modules:
        return absolute_uri(os.environ.get(REGISTRY_URI) or tracking_uri())
    import mlflow

    return absolute_uri(mlflow.get_registry_uri())


def bound_requests(bounds: Mapping[str, str] = REQUEST_BOUNDS) -> None:
    """Bound the time that MLflow waits for a server in this process. Values that the user has set stay."""
    for name, bound in bounds.items():
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
        PackageMissing: they are in a cloud's object store, and its client is not installed.
    """
    scheme = artifact_uri.partition(":")[0]
    if scheme == "mlflow-artifacts" and not is_remote(tracking_uri()):
        raise ArtifactsBehindServer
    module, package = OBJECT_STORES.get(scheme, ("sys", ""))
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise PackageMissing(module, package) from error


@functools.cache  # exceptions are not cached
def require_database(uri: str) -> None:
    """Check a database before its first use in this process, in which MLflow would retry to connect for minutes.

    URIs of servers and folders are not checked. Raises as `check_database`.
    """
    if uri.startswith(DATABASES):
        check_database(uri)


def check_tracking_server() -> None:
    """Check that MLflow's tracking server and its model registry answer, in one attempt each.

    MLflow would retry for minutes. Folders and servers of Databricks are not checked.

    Raises:
        TrackingServerUnreachable, CredentialsRejected: as `check_server`.
        DatabaseUnreachable, RegistryFailed: as `check_database`.
        PackageMissing: MLflow needs a package that is not installed.
    """
    import_mlflow()
    for uri in dict.fromkeys((tracking_uri(), registry_uri())):
        _check(uri)


def check_registry() -> None:
    """Check that MLflow's model registry answers; raises as `check_tracking_server`.

    This is all that reading the registry needs. Files that the tracking server keeps need that server, too.
    """
    import_mlflow()
    _check(registry_uri())


def _check(uri: str) -> None:
    if uri.startswith(("http://", "https://")):
        check_server(uri)
    elif uri.startswith(DATABASES):
        check_database(uri)
