"""Starts or joins Ray and Ray Serve, deploys one application, and stops what it started."""

import contextlib
import errno
import logging
import os
import re
import socket
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.request import ProxyHandler, build_opener

from serving import processes
from serving.ray import internals, node
from serving.ray.drain import drain_proxies
from serving.ray.errors import (
    ApplicationTaken,
    DeploymentFailed,
    GpusMissing,
    GrpcNotStarted,
    HostInvalid,
    PortTaken,
    RouteTaken,
    failure_reason,
)
from serving.ray.stopping import hangup_blocked, restore_handlers

logger = logging.getLogger(__name__)

SERVICER_FUNCTION = "serving.protocols.open_inference.grpc_service.add_GRPCInferenceServiceServicer_to_server"
"""The function that registers the gRPC service with Serve."""

POLL_S = 0.05
STATUS_EVERY_S = 0.5
LOOPBACK = ("127.0.0.1", "::1", "localhost")

_DIRECTLY = build_opener(ProxyHandler({}))
"""Connects without a proxy: the server is on this machine, or beside it on a cluster."""


class Cluster:
    """A local Ray, or a Ray cluster that is joined, with Serve running on it.

    Use it as a context manager. On exit a local Ray is shut down; from a joined cluster the deployed applications are
    deleted.

    Args:
        host: The address that the server listens on, of a cluster on every node; None for 127.0.0.1, or for all
            addresses of each node.
        port: The port for HTTP.
        grpc_port: The port for gRPC; None turns it off.
        address: The Ray cluster to join; None starts a local Ray.
        cpus: The number of CPUs that a local Ray offers; None for those of the machine.
        tracing: Serve's TracingConfig; None for its defaults. A Serve that runs already keeps its own.
    """

    def __init__(
        self,
        host: str | None,
        port: int,
        *,
        grpc_port: int | None = None,
        address: str | None = None,
        cpus: int | None = None,
        tracing: dict[str, Any] | None = None,
    ) -> None:
        self.host = default_host(address) if host is None else host
        self.port, self.grpc_port = port, grpc_port
        self._address, self._cpus, self._tracing = address, cpus, tracing
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            if self._address is None:
                check_port(self.host, self.port)
                self._start()
            else:
                self._join(self._address)
            internals.print_replicas_only()
            self._start_serve()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            # Ray prints to stdout that its actors were killed.
            with Path(os.devnull).open("w") as null, contextlib.redirect_stdout(null):
                self._cleanup.close()
        except Exception as error:  # noqa: BLE001 - the other steps were taken; an error of the block must not be hidden
            logger.warning("ending Ray failed: %s: %s", type(error).__name__, error)

    def _start(self) -> None:
        import ray

        internals.check_loopback()
        runtime_env = None
        if self.grpc_port is not None:
            internals.check_grpc()
            # HAProxy, if it runs, is in front of Serve's own gRPC servers.
            host = "127.0.0.1" if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1" else self.host
            runtime_env = {"worker_process_setup_hook": internals.grpc_setup_hook(host)}
        internals.silence_token_notice()
        processes.adopt_orphans()
        self._cleanup.callback(processes.kill_children)
        self._cleanup.callback(ray.shutdown)
        with hangup_blocked(), restore_handlers(), internals.needed_processes_only():
            ray.init(
                # "local" always starts a Ray; without an address ray.init joins one that runs on this machine.
                address="local",
                include_dashboard=False,
                num_cpus=self._cpus,
                namespace=node.NAMESPACE,
                logging_level=logging.WARNING,
                runtime_env=runtime_env,
            )

    def _join(self, address: str) -> None:
        import ray

        import serving

        self._cleanup.callback(ray.shutdown)  # disconnects; the cluster keeps running
        with restore_handlers():
            node.join(address, {"py_modules": [str(Path(serving.__file__).parent)]})

    def require_gpus(self, needed: float) -> None:
        """Check that a local Ray has found so many GPUs; a cluster may add nodes. Raises GpusMissing."""
        import ray

        if needed and self._address is None and (found := ray.cluster_resources().get("GPU", 0)) < needed:
            raise GpusMissing(needed, found)

    def _start_serve(self) -> None:
        from ray import serve
        from ray.exceptions import RayError

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        if self._address is None:
            self._cleanup.callback(serve.shutdown)
        grpc = None
        if self.grpc_port is not None:
            grpc = {"port": self.grpc_port, "grpc_servicer_functions": [SERVICER_FUNCTION]}
        try:
            serve.start(
                # The head, and every node with a replica.
                proxy_location="HeadOnly" if self._address is None else "EveryNode",
                http_options={"host": self.host, "port": self.port},
                grpc_options=grpc,
                tracing_config=self._tracing,
            )
        except RuntimeError as error:
            if "Failed to bind" in str(error):
                raise PortTaken(self.host, self.port, "taken while Ray started") from error
            raise
        except RayError as error:  # on an overloaded machine, the proxy or the controller is not ready in time
            reason = next(iter(str(error).splitlines()), repr(error))
            raise DeploymentFailed(f"Ray Serve did not start: {reason}", str(error)) from error
        self._read_addresses()

    def _read_addresses(self) -> None:
        """Read where Serve listens: one that ran already on the cluster keeps its own addresses.

        Raises:
            GrpcNotStarted: It runs without the gRPC service.
        """
        self.host, self.port = internals.http_address() or (self.host, self.port)
        if self._address is not None and self.host in LOOPBACK and internals.count_nodes() > 1:
            logger.warning("Serve listens on %s: proxies cannot reach replicas on other nodes. Omit --host", self.host)
        if self.grpc_port is not None and (service := internals.grpc_service()) is not None:
            self.grpc_port, functions = service
            if SERVICER_FUNCTION not in functions:
                raise GrpcNotStarted(SERVICER_FUNCTION)

    @property
    def client_host(self) -> str:
        """The host to which clients connect: on this machine, or for all addresses of a cluster, its head node."""
        if self.host not in ("0.0.0.0", "*", "::"):  # noqa: S104
            return self.host
        local = "::1" if self.host == "::" else "127.0.0.1"
        return local if self._address is None else internals.head_address() or local

    def deploy(self, application: Any, name: str, route_prefix: str) -> None:
        """Deploy the application without waiting for it. It is deleted on exit.

        Raises:
            ApplicationTaken, RouteTaken: Serve already runs one of that name or with that route.
        """
        from ray import serve
        from ray.serve.exceptions import RayServeException

        running = serve.status().applications.get(name)
        if running is not None and running.status != "DELETING":
            raise ApplicationTaken(name)
        target = serve.RunTarget(application, name=name, route_prefix=route_prefix)
        # Before serve.shutdown, which stops the proxy while requests are still in progress.
        self._cleanup.callback(self._delete, name)
        if self._address is None:
            self._cleanup.callback(drain_proxies)
        try:
            serve.run_many([target], wait_for_applications_running=False)
        except RayServeException as error:
            taken = re.search(r'Prefix (\S+) is being used by application "(.+?)"\.', str(error))
            if taken is None:
                raise
            raise RouteTaken(*taken.groups()) from error

    def _delete(self, name: str) -> None:
        """Delete the application, unless someone has deployed one of that name from a config file meanwhile."""
        from ray import serve

        if not internals.is_from_config_file(name):
            serve.delete(name)

    def wait(self, name: str, url: str, timeout_s: float) -> None:
        """Wait until `url` answers with status 200 through the proxy.

        Raises:
            DeploymentFailed: A replica failed to start, or `url` did not answer in time.
        """
        deadline = time.monotonic() + timeout_s
        next_status = time.monotonic() + STATUS_EVERY_S
        while not _answers(url):
            if time.monotonic() > next_status:
                _raise_if_failed(name)
                next_status = time.monotonic() + STATUS_EVERY_S
            if time.monotonic() > deadline:
                raise DeploymentFailed(f"no answer within {timeout_s:g} s", _messages(name))
            time.sleep(POLL_S)


def default_host(address: str | None) -> str:
    """Return the host to listen on: a local Ray is private, the proxies of a cluster reach all of its nodes."""
    return "127.0.0.1" if address is None else "0.0.0.0"  # noqa: S104


def check_port(host: str, port: int, option: str = "--port") -> None:
    """Check that this process could listen on a port.

    Raises:
        PortTaken: The port cannot be used; the error names the option to change.
        HostInvalid: The host is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        # The server sets it, too: lingering connections of the previous server do not block the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            if isinstance(error, (socket.gaierror, UnicodeError)) or error.errno == errno.EADDRNOTAVAIL:
                raise HostInvalid(host, port, reason) from error
            raise PortTaken(host, port, reason, option) from error


def _answers(url: str) -> bool:
    try:
        with _DIRECTLY.open(url, timeout=1) as answer:
            return bool(answer.status == HTTPStatus.OK and answer.headers.get("X-Model-Version"))
    except OSError:
        return False


def _raise_if_failed(name: str) -> None:
    from ray import serve

    application = serve.status().applications.get(name)
    if application is not None and application.status in ("DEPLOY_FAILED", "UNHEALTHY"):
        details = _messages(name)
        raise DeploymentFailed(failure_reason(details), details)


def _messages(name: str) -> str:
    from ray import serve

    application = serve.status().applications[name]
    return "\n".join([application.message, *(each.message for each in application.deployments.values())])
