import stat
from pathlib import Path

import pytest

from serving.ray.haproxy_wrapper import ACCEPTED, FALLBACK_FAILED, GRPC_REQUEST_ID, REQUEST_ID, STARTING, edit, edited
from serving.telemetry import request_ids

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
