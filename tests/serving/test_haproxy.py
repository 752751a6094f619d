from pathlib import Path

import pytest

from serving.haproxy import edited, served_by, with_forgotten

GENERATED = """global
    log 127.0.0.1:514 local0 info
    stats socket /run/admin.sock mode 666 level admin expose-fd listeners
defaults
    timeout connect 5s
frontend prometheus
    bind :9101
    mode http
frontend http_frontend
    bind 127.0.0.1:8000
    acl healthcheck path -i /-/healthz
listen stats
  bind *:8404
  stats enable
"""


def test_what_serve_leaves_open_is_closed_and_the_rest_untouched() -> None:
    lines = edited(GENERATED, Path("/run")).splitlines()
    assert lines == [
        "global",
        "    log 127.0.0.1:514 local0 err",
        "    stats socket /run/admin.sock mode 600 level admin expose-fd listeners",
        "defaults",
        "    timeout connect 100ms",
        "frontend prometheus",
        "    bind unix@/run/prom.sock mode 600",
        "    mode http",
        "frontend http_frontend",
        "    option http-buffer-request",
        "    bind 127.0.0.1:8000",
        "    http-request set-header x-request-disconnect-disabled ?1",
        "    acl healthcheck path -i /-/healthz",
        "listen stats",
        "  bind unix@/run/stats.sock mode 600",
        "  stats enable",
    ]


def test_editing_twice_changes_nothing_more() -> None:
    once = edited(GENERATED, Path("/run"))
    assert edited(once, Path("/run")) == once


def test_a_configuration_that_cannot_be_closed_is_not_run() -> None:
    with pytest.raises(SystemExit, match="cannot make HAProxy private"):
        edited(GENERATED.replace("listen stats", "listen something"), Path("/run"))


EMPTY = """frontend http_frontend
    bind 127.0.0.1:8000
    default_backend default_backend
backend default_backend
    http-request return status 404
listen stats
"""
RULES = """    acl is_app path_beg /app/
    acl is_app path /app
    use_backend app if is_app
"""
SERVING = EMPTY.replace("    default_backend", f"{RULES}    default_backend").replace(
    "listen stats",
    """backend app
    log global
    # Servers in this backend
    server replica 127.0.0.1:3000 check observe layer4
    # Fallback to head node's Serve proxy when no ingress replicas are available
    server proxy 127.0.0.1:8500 check backup
listen stats""",
)


def test_an_application_without_replicas_goes_to_serves_own_proxy() -> None:
    kept = with_forgotten(EMPTY, served_by(SERVING))
    assert kept == EMPTY.replace("    default_backend", f"{RULES}    default_backend").replace(
        "listen stats", "backend app\n    log global\n    server proxy 127.0.0.1:8500\nlisten stats"
    )


def test_an_application_with_replicas_is_left_as_it_is() -> None:
    assert with_forgotten(SERVING, served_by(SERVING)) == SERVING
    assert served_by(EMPTY) == {}
