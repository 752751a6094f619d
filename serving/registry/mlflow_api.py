"""Tries whether MLflow answers, once and within seconds, and raises the exceptions of MLflow as errors of this room.

MLflow itself retries an unreachable server for minutes, and an unreachable database for an hour.
"""

import fcntl
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from serving.registry.errors import (
    AccessDenied,
    CredentialsRejected,
    DatabaseUnreachable,
    PackageMissing,
    RegistryError,
    RegistryFailed,
    TrackingServerUnreachable,
    WorkspaceUnusable,
)

logger = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 3.0

CONNECT_ATTEMPTS = 3
"""How often MLflow tries to connect to a database when it opens it, within half a second."""

_PROBE = "/api/2.0/mlflow/experiments/get"
"""Every MLflow server has it, as /health is missing behind some gateways. It needs the database behind the server."""

_LIBRARIES = {"mlflow", "requests", "urllib3", "sqlalchemy", "alembic", "boto3", "botocore", "s3transfer", "google"}
"""MLflow, and the libraries through which it reaches its stores; their exceptions pass through MLflow unchanged."""

_PACKAGES = {
    "boto3": "'cartpole-ppo[s3]'",
    "google": "google-cloud-storage",
    "azure": "azure-storage-blob azure-identity",
    "psycopg2": "'cartpole-ppo[postgres]'",
    "psycopg": "'cartpole-ppo[postgres]', and write postgresql+psycopg2:// in the URI",
    "MySQLdb": "mysqlclient",
    "requests_auth_aws_sigv4": "requests-auth-aws-sigv4",
}
"""The package that contains a module which MLflow imports when a URI or a setting needs it."""

_UNEXPECTED_STATUS = re.compile(r"API request to endpoint (\S+) failed with error code (\d{3}) .*")
"""What MLflow raises for an answer that is not its own; the body, such as the page of a gateway, follows."""


_WITHOUT_CLIENT_CERTIFICATE = ("certificate required", "handshake failure", "unknown ca", "bad certificate")
"""The alerts of TLS with which a server refuses a client's certificate, or its lack."""


def check_server(uri: str) -> None:
    """Send one request to an MLflow server, as MLflow's client would: with its TLS settings and credentials.

    Every answer below 500 shows that the server works, also one that refuses this request.

    Raises:
        TrackingServerUnreachable: there is no answer within 3 seconds, or a status from 500 on.
        CredentialsRejected: the server or a gateway before it requires credentials, or other ones.
        PackageMissing: MLflow needs a package for this way of authentication.
        RegistryFailed: MLflow's settings contradict each other.
        WorkspaceUnusable: the server has no such workspace.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    with mlflow_errors(uri):
        credentials = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
    try:
        answer = http_request(  # type: ignore[no-untyped-call]
            credentials,
            _PROBE,
            "GET",
            params={"experiment_id": "0"},
            max_retries=0,
            timeout=PROBE_TIMEOUT_S,
            raise_on_status=False,
        )
    except MlflowException as error:
        raise TrackingServerUnreachable(uri, why_unreachable(error), variable_of(uri)) from error
    except ImportError as error:
        raise _package_missing(error) from error
    _raise_if_unusable(uri, answer.status_code, _message(answer))


def check_database(uri: str) -> None:
    """Connect to a database once. MLflow creates its tables if there are none, in one process at a time.

    From then on, MLflow fails within a second in this process if it opens the database while that is down.

    Raises:
        DatabaseUnreachable: there is no connection within seconds, or the file is no database.
        PackageMissing: the driver is not installed.
        RegistryFailed: MLflow cannot use the database.
    """
    from mlflow import MlflowClient
    from sqlalchemy import create_engine, make_url, text
    from sqlalchemy.exc import SQLAlchemyError

    url = make_url(uri)
    is_file = url.get_backend_name() == "sqlite"
    file = Path(url.database or "") if is_file else None
    shown = url.render_as_string(hide_password=True)
    if file is not None and not file.exists():
        _check_creatable(file, shown, variable_of(uri))
    else:
        try:
            timeout = {} if is_file else {"connect_timeout": int(PROBE_TIMEOUT_S)}
            engine = create_engine(url, connect_args=timeout)
            with engine.connect() as connection:
                connection.execute(text("PRAGMA schema_version" if is_file else "SELECT 1"))
            engine.dispose()
        except SQLAlchemyError as error:
            reason = first_line(getattr(error, "orig", None) or error)
            raise DatabaseUnreachable(shown, reason, variable_of(uri)) from error
        except ImportError as error:
            raise _package_missing(error) from error
    _bound_connecting()
    with _locked(file), mlflow_errors(shown):
        MlflowClient(uri, uri).search_experiments(max_results=1)


def _bound_connecting() -> None:
    """Bound the attempts of MLflow to open a database: it would try for almost two minutes, and has no setting."""
    from mlflow.store.db import utils

    if not hasattr(utils, "MAX_RETRY_COUNT"):
        logger.warning("this MLflow differs from MLflow 3.17, so polls wait for minutes for a database that is down")
    utils.MAX_RETRY_COUNT = CONNECT_ATTEMPTS


def _raise_if_unusable(uri: str, status: int, message: str) -> None:
    """Raise the error of an answer to the probe, if it shows that no later request can succeed."""
    if status == HTTPStatus.UNAUTHORIZED:
        raise CredentialsRejected(uri)
    workspace = os.environ.get("MLFLOW_WORKSPACE")
    if workspace and status >= HTTPStatus.BAD_REQUEST and "workspace" in message.lower():
        raise WorkspaceUnusable(uri, workspace, message)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        reason = f"status {status}: {message}" if message else f"status {status}"
        raise TrackingServerUnreachable(uri, reason, variable_of(uri))


@contextmanager
def mlflow_errors(uri: str) -> Iterator[None]:
    """Raise the exceptions of MLflow, and of the libraries through which it reaches its stores, as RegistryError."""
    try:
        yield
    except Exception as error:
        expected = as_expected(error, uri)
        if expected is None:
            raise
        raise expected from error


def as_expected(error: Exception, uri: str | None = None) -> RegistryError | None:
    """Return the error of this room for an exception of MLflow; None for any other. `uri` is MLflow's by default."""
    if isinstance(error, ImportError):
        return _package_missing(error) if (error.name or "").partition(".")[0] in _PACKAGES else None
    if type(error).__module__.partition(".")[0] not in _LIBRARIES:
        return None
    if uri is None:
        import mlflow

        uri = mlflow.get_tracking_uri()
    code = getattr(error, "error_code", None)
    if code in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"):
        return CredentialsRejected(uri)
    reason = first_line(error)
    if code == "PERMISSION_DENIED":
        return AccessDenied(uri, account() or "this account", reason)
    if "operator does not exist: integer <> character varying" in str(error):
        # Seen with psycopg 3, which `postgresql://` selects from SQLAlchemy 2.1 on.
        reason = "its database driver, psycopg 3, cannot archive versions. Use postgresql+psycopg2:// as MLflow's store"
    elif is_http_failure(error):
        return TrackingServerUnreachable(uri, why_unreachable(error), variable_of(uri))
    return RegistryFailed(uri, reason)


def variable_of(uri: str) -> str:
    """Return the variable of MLflow that holds a URI."""
    registry, tracking = (os.environ.get(name) for name in ("MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_URI"))
    return "MLFLOW_REGISTRY_URI" if uri == registry != tracking else "MLFLOW_TRACKING_URI"


def account() -> str | None:
    """Return the name of the account with which MLflow's client reaches a server; None with a token, or without one."""
    from mlflow.utils.credentials import read_mlflow_creds

    return read_mlflow_creds().username


def _check_creatable(file: Path, uri: str, variable: str) -> None:
    existing = next(parent for parent in file.absolute().parents if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        reason = f"the file does not exist, and {existing} is not a writable directory"
        raise DatabaseUnreachable(uri, reason, variable)


@contextmanager
def _locked(file: Path | None) -> Iterator[None]:
    """Lock the directory of a file, in which two processes cannot create MLflow's tables at the same time."""
    if file is None:
        yield
        return
    file.absolute().parent.mkdir(parents=True, exist_ok=True)
    directory = os.open(file.absolute().parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _package_missing(error: ImportError) -> PackageMissing:
    module = (error.name or "").partition(".")[0]
    return PackageMissing(module, _PACKAGES.get(module, module))


def is_http_failure(error: BaseException) -> bool:
    """Return whether an exception of MLflow comes from a request that got no usable answer."""
    return any(type(each).__module__.startswith("urllib3") for each in causes(error))


def why_unreachable(error: BaseException) -> str:
    """Return the cause of a failed request, from the innermost of the exceptions that lead to it."""
    chain = list(causes(error))
    if any(isinstance(each, TimeoutError) for each in chain):
        return f"no answer within {PROBE_TIMEOUT_S:g} s"
    cause = chain[-1]
    reason = getattr(cause, "strerror", None) or first_line(cause)
    if "certificate verify failed" in reason:
        reason = f"{reason.partition(' (_ssl')[0]}; MLFLOW_TRACKING_SERVER_CERT_PATH names a certificate to trust"
    elif any(alert in reason for alert in _WITHOUT_CLIENT_CERTIFICATE):
        reason = f"{reason.partition(' (_ssl')[0]}; MLFLOW_TRACKING_CLIENT_CERT_PATH names a certificate of the client"
    return reason[:1].lower() + reason[1:]


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that led to it, the outermost first."""
    current: BaseException | None = error
    while current is not None:
        yield current
        # urllib3 also carries the cause as an argument: ProtocolError("Connection aborted.", RemoteDisconnected(...)).
        inner = next((each for each in current.args if isinstance(each, BaseException)), None)
        current = current.__cause__ or current.__context__ or inner


def _message(answer: "requests.Response") -> str:  # type: ignore[name-defined]  # noqa: F821
    """Return the message in an answer of MLflow, which names the cause of its failure; "" if it has none."""
    try:
        return next(iter(str(answer.json()["message"]).splitlines()))[:200]
    except (ValueError, KeyError, TypeError, StopIteration):
        return ""


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or the name of its class if it has none."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return _UNEXPECTED_STATUS.sub(r"status \2 for \1", line)[:500]
