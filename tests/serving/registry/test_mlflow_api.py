"""Whether MLflow answers is tried with its own HTTP layer; its exceptions are one line each."""

import contextlib
import fcntl
import os
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from serving.registry import mlflow_api, tracking
from serving.registry.errors import (
    AccessDenied,
    CredentialsRejected,
    DatabaseUnreachable,
    PackageMissing,
    RegistryError,
    RegistryFailed,
    TrackingServerUnreachable,
)
from tests.unreliable_proxy import CLOSE, UnreliableProxy, unreliable_proxy


@pytest.fixture(autouse=True)
def _the_variable_decides() -> None:
    """Take back what an earlier test in this process told MLflow, which comes before the variable."""
    import mlflow

    mlflow.set_tracking_uri(None)


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that checks the MLflow at a URI."""

    def check(uri: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        tracking.check_tracking_server()

    return check


@pytest.fixture
def proxy() -> Iterator[UnreliableProxy]:
    """A server that answers every request with 404 and JSON, as MLflow does to the name of no experiment."""
    with unreliable_proxy("http://127.0.0.1:1") as proxy:
        yield proxy


def test_the_error_of_a_server_that_is_down_names_it(check: Callable[[str], None]) -> None:
    with pytest.raises(TrackingServerUnreachable) as caught:
        check("http://127.0.0.1:1")
    assert str(caught.value) == (
        "no MLflow server answers at http://127.0.0.1:1 (connection refused). Start it, or set MLFLOW_TRACKING_URI "
        "to the URI of another one"
    )


def test_a_server_that_hangs_times_out(check: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_api, "PROBE_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        start = time.monotonic()
        with pytest.raises(TrackingServerUnreachable, match=r"no answer within 0\.2 s"):
            check(f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("status", [200, 400, 403, 404, 429])
def test_a_server_is_reachable_if_its_api_answers_below_500_without_a_health_route(
    status: int, proxy: UnreliableProxy, check: Callable[[str], None]
) -> None:
    proxy.fail(404, path="^/health")
    proxy.fail(status, path="^/behind/a/gateway/api/2.0/mlflow/")
    check(f"{proxy.url}/behind/a/gateway/")
    assert len(proxy.requests) == 1


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, b"<html>", "status 500"),
        (
            503,
            b'{"error_code": "TEMPORARILY_UNAVAILABLE", "message": "the database is down\\n[SQL: ...]"}',
            "status 503: the database is down",
        ),
        (CLOSE, b"", "remote end closed connection without response"),
    ],
)
def test_a_server_whose_api_fails_is_unreachable_though_it_is_healthy(
    status: int, body: bytes, reason: str, proxy: UnreliableProxy, check: Callable[[str], None]
) -> None:
    proxy.fail(200, path="^/health")
    proxy.fail(status, path="^/api/", body=body)
    with pytest.raises(TrackingServerUnreachable) as caught:
        check(proxy.url)
    assert caught.value.reason == reason
    assert len(proxy.requests) == 1


def test_the_credentials_of_mlflows_variables_are_sent(
    proxy: UnreliableProxy, check: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.fail(401, lacking="Authorization: Bearer right")
    proxy.fail(200)
    with pytest.raises(CredentialsRejected, match=r"requires credentials.*Set MLFLOW_TRACKING_USERNAME and"):
        check(proxy.url)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "right")
    check(proxy.url)
    monkeypatch.setenv("MLFLOW_TRACKING_AWS_SIGV4", "true")
    with pytest.raises(PackageMissing, match=r"module requests_auth_aws_sigv4.* pip install requests-auth-aws-sigv4"):
        check(proxy.url)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that no authority has signed, with its key in the same file."""
    directory = tmp_path_factory.mktemp("tls")
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem"
    command = [*request.split(), "-subj", "/CN=here", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
    file = directory / "site.pem"
    file.write_text((directory / "cert.pem").read_text() + (directory / "key.pem").read_text())
    return file


def test_tls_with_an_own_authority_and_a_client_certificate(
    site: Path, check: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(site)
    context.load_verify_locations(site)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # with 1.3 a client may see the closed connection only
    with unreliable_proxy("http://127.0.0.1:1", context) as proxy:
        proxy.fail(200)
        with pytest.raises(TrackingServerUnreachable, match="self-signed certificate; MLFLOW_TRACKING_SERVER"):
            check(proxy.url)
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(site))
        with pytest.raises(TrackingServerUnreachable, match="handshake failure"):
            check(proxy.url)
        monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(site))
        check(proxy.url)
        monkeypatch.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH")
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        with pytest.warns(Warning, match="Unverified HTTPS request"):
            check(proxy.url)
        monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", "/nowhere.pem")
        with pytest.raises(TrackingServerUnreachable, match=r"could not find the TLS certificate file.*/nowhere\.pem"):
            check(proxy.url)


def test_the_error_names_the_proxy_of_the_environment(
    check: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with pytest.raises(
        TrackingServerUnreachable, match=r"\(connection refused, through the proxy http://127\.0\.0\.1:1\)"
    ):
        check("http://mlflow.invalid:5000")


@pytest.mark.parametrize(
    ("scheme", "module", "package"),
    [
        ("postgresql+psycopg2", "psycopg2", r"'cartpole-ppo\[postgres\]'$"),
        ("postgresql", "psycopg", r"'cartpole-ppo\[postgres\]', and write postgresql\+psycopg2://"),
        ("mysql", "MySQLdb", "mysqlclient"),
    ],
)
def test_the_error_names_the_package_of_a_missing_database_driver(
    scheme: str, module: str, package: str, check: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PackageMissing, match=f"needs the module {module}, .*: pip install {package}"):
        check(f"{scheme}://mlflow:secret@127.0.0.1:1/mlflow")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "the file does not exist, and .*/file is not a writable directory"), (b"text" * 100, "is not a database")],
)
def test_a_sqlite_file_that_cannot_be_opened_is_reported_at_once(
    content: bytes | None, reason: str, tmp_path: Path, check: Callable[[str], None]
) -> None:
    (tmp_path / "file").write_bytes(content or b"")
    path = tmp_path / "file" if content else tmp_path / "file" / "mlflow.db"
    with pytest.raises(DatabaseUnreachable, match=reason):
        check(f"sqlite:///{path}")


def test_mlflow_gives_up_a_database_that_goes_down_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For MLflow 3.17. If it fails, look at how `mlflow.store.db.utils` retries to connect."""
    from mlflow.store.db import utils

    attempts: list[str] = []
    create = utils.create_sqlalchemy_engine
    monkeypatch.setattr(utils, "MAX_RETRY_COUNT", 10)  # restored afterwards
    mlflow_api.check_database(f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(utils, "create_sqlalchemy_engine", lambda uri: attempts.append(uri) or create(uri))
    monkeypatch.setattr(utils.time, "sleep", lambda _: None)
    with pytest.raises(OperationalError):
        utils.create_sqlalchemy_engine_with_retry(f"sqlite:///{tmp_path}")
    assert len(attempts) == 3


def test_mlflow_opens_a_sqlite_file_in_one_process_at_a_time(
    tmp_path: Path, check: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    opened = []

    def open_store(client: MlflowClient, **_: object) -> None:
        opened.append(client.tracking_uri)
        directory = os.open(tmp_path / "new", os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(directory)

    monkeypatch.setattr(MlflowClient, "search_experiments", open_store)
    check(f"sqlite:///{tmp_path}/new/mlflow.db")
    assert opened == [f"sqlite:///{tmp_path}/new/mlflow.db"]


@pytest.mark.long
def test_four_processes_create_one_store(tmp_path: Path) -> None:
    script = "from serving.registry.tracking import check_tracking_server as check; check()"
    command = [sys.executable, "-c", script]
    processes = [subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in processes:
        _, shown = process.communicate()
        assert (process.returncode, "Traceback" in shown) == (0, False), shown
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        assert database.execute("SELECT count(*) FROM experiments").fetchone() == (1,)


def mlflow_exception(message: str, code: str) -> Exception:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import ErrorCode

    return MlflowException(message, ErrorCode.Value(code))


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (("no", "PERMISSION_DENIED"), AccessDenied, r"does not permit this account to do this \(no\)"),
        (("no", "UNAUTHENTICATED"), CredentialsRejected, "requires credentials"),
        (("first\nsecond", "INTERNAL_ERROR"), RegistryFailed, "failed: first$"),
        (
            ("API request to endpoint /a failed with error code 404 != 200. Response body: '<html>\n'", "NOT_FOUND"),
            RegistryFailed,
            "failed: status 404 for /a$",
        ),
        (
            ("(psycopg.errors) operator does not exist: integer <> character varying", "BAD_REQUEST"),
            RegistryFailed,
            r"Use postgresql\+psycopg2://",
        ),
    ],
)
def test_exceptions_of_mlflow_are_one_line(error: tuple[str, str], expected: type[RegistryError], message: str) -> None:
    with pytest.raises(expected, match=message), mlflow_api.mlflow_errors("http://x"):
        raise mlflow_exception(*error)


def test_other_exceptions_stay_what_they_are() -> None:
    with pytest.raises(KeyError), mlflow_api.mlflow_errors("http://x"):
        raise KeyError
    with pytest.raises(ImportError), mlflow_api.mlflow_errors("http://x"):
        raise ModuleNotFoundError("No module named 'mine'", name="mine")
    with (
        pytest.raises(PackageMissing, match=r"the module boto3.* pip install 'cartpole-ppo\[s3\]'"),
        mlflow_api.mlflow_errors("x"),
    ):
        raise ModuleNotFoundError("No module named 'boto3'", name="boto3")
