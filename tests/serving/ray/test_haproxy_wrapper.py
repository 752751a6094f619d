import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from serving.ray.haproxy_wrapper import ACCEPTED, FALLBACK_FAILED, GRPC_REQUEST_ID, REQUEST_ID, STARTING, edit, edited
from serving.telemetry import request_ids
from tests.workshop import free_port

GENERATED = """global
    log 127.0.0.1:514 local0 info
    stats socket /run/admin.sock mode 666 level admin expose-fd listeners
defaults
    timeout connect 5s
    timeout client 30s
    errorfile 502 /run/500.http
    errorfile 503 /run/500.http
frontend prometheus
    bind :9101
    mode http
frontend http_frontend
    bind 127.0.0.1:8000
    acl healthcheck path -i /-/healthz
    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path not found."
listen stats
  bind *:8404
  stats enable
"""


def test_listeners_become_private_and_other_lines_stay() -> None:
    lines = edited(GENERATED, Path("/run")).splitlines()
    assert lines == [
        "global",
        "    tune.memory.hot-size 67108864",
        "    log 127.0.0.1:514 local0 err",
        "    stats socket /run/admin.sock mode 600 level admin expose-fd listeners",
        "defaults",
        "    timeout connect 100ms",
        "    timeout client 30s",
        "    timeout http-request 10s",
        "    option http-ignore-probes",
        *(f"    errorfile {status} /run/error-{status}.http" for status in (400, 408, 500, 502, 503, 504)),
        "frontend prometheus",
        "    bind unix@/run/prom.sock mode 600",
        "    mode http",
        "frontend http_frontend",
        FALLBACK_FAILED,
        "    option http-buffer-request",
        *REQUEST_ID.splitlines(),
        "    bind 127.0.0.1:8000",
        "    http-request set-header x-request-disconnect-disabled ?1",
        "    acl healthcheck path -i /-/healthz",
        "    default_backend default_backend",
        "backend default_backend",
        f"    http-request {STARTING}",
        "listen stats",
        "  bind unix@/run/stats.sock mode 600",
        "  stats enable",
    ]


def test_the_directory_of_the_configuration_becomes_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "haproxy.cfg").write_text(GENERATED)
    edit(tmp_path / "haproxy.cfg")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == stat.S_IRWXU


APPLICATION = """    acl is_http-faulty path_beg /faulty/
    acl is_http-faulty path /faulty
    use_backend http-faulty if is_http-faulty
    default_backend default_backend
"""
BACKEND = """backend http-faulty
    log global

    option httpchk GET /-/healthz
    http-check expect status 200
    # Servers in this backend
{replicas}    # Fallback to head node's Serve proxy when no ingress replicas are available
    server SERVE_PROXY_ACTOR-fallback-1 127.0.0.1:8500 check backup
listen stats
"""


def configured(*ports: int) -> str:
    """The configuration of an application with replicas at these ports."""
    lines = "".join(f"    server SERVE_REPLICA_faulty-{port} 127.0.0.1:{port} check\n" for port in ports)
    generated = GENERATED.replace("    default_backend default_backend\n", APPLICATION)
    return generated.replace("listen stats\n", BACKEND.format(replicas=lines))


def servers(configuration: Path) -> list[str]:
    return [line.split()[2] for line in configuration.read_text().splitlines() if line.startswith("    server ")]


FALLBACK = "127.0.0.1:8500"


class Answer(BaseHTTPRequestHandler):
    """A replica of the application at /faulty, or an other one."""

    version: ClassVar[str | None] = "1"

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/faulty/health" else 404)
        if self.version is not None:
            self.send_header("X-Model-Version", self.version)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_replicas_stay_while_serve_builds_a_new_release(port: int, tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    for generated in (configured(port, free_port()), configured(), configured()):
        file.write_text(generated)
        edit(file)
    assert servers(file) == [f"127.0.0.1:{port}", FALLBACK], "the one that still serves, and Serve's proxy"
    assert "    option httpchk GET /faulty/health\n" in file.read_text()
    once = file.read_text()
    edit(file)
    assert file.read_text() == once
    file.write_text(configured(port + 1))
    edit(file)
    assert servers(file) == [f"127.0.0.1:{port + 1}", FALLBACK], "Serve names replicas again"
    assert "    option httpchk GET /-/healthz\n" in file.read_text()


def test_a_new_application_has_no_replicas_of_an_earlier_one(port: int, tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    for generated in (configured(port), GENERATED, configured()):
        file.write_text(generated)
        edit(file)
    assert servers(file) == [FALLBACK]


def test_replicas_of_other_programs_do_not_stay(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answer, "version", None)
    file = tmp_path / "haproxy.cfg"
    for generated in (configured(port), configured()):
        file.write_text(generated)
        edit(file)
    assert servers(file) == [FALLBACK]
    assert "    option httpchk GET /-/healthz\n" in file.read_text()


def test_editing_twice_changes_nothing_more() -> None:
    once = edited(GENERATED, Path("/run"))
    assert edited(once, Path("/run")) == once


@pytest.mark.parametrize(
    "configuration",
    [
        GENERATED.replace("listen stats", "listen something"),
        GENERATED.replace("mode 666 level", "level"),
        f"{GENERATED}frontend other\n    bind *:9999\n",
        f"{GENERATED}frontend other\n    bind :9999 proto h2\n",
        f"{GENERATED}global\n    stats socket /run/other.sock level admin\n",
    ],
)
def test_a_configuration_that_stays_exposed_is_not_run(configuration: str) -> None:
    with pytest.raises(SystemExit, match="cannot make HAProxy private"):
        edited(configuration, Path("/run"))


def test_the_frontend_for_grpc_gets_the_request_id_where_there_is_one() -> None:
    grpc = f"{GENERATED}frontend grpc_frontend\n    bind 127.0.0.1:9000 proto h2\n"
    once = edited(grpc, Path("/run"))
    assert once.endswith(f"frontend grpc_frontend\n{GRPC_REQUEST_ID}    bind 127.0.0.1:9000 proto h2\n")
    assert edited(once, Path("/run")) == once


def test_haproxy_and_the_direct_port_take_the_same_request_ids() -> None:
    """The wrapper can import nothing of the package."""
    assert ACCEPTED == request_ids.ACCEPTED
