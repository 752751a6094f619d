"""Ray and Ray Serve around one application: started or joined, deployed to, and left as they were found."""

import contextlib
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from serving import processes as orphans
from serving.ray import drain as proxy
from serving.ray.errors import ClusterUnreachable, DeploymentFailed, GrpcNotStarted, PortTaken
from serving.ray.internals import setup_hook
from serving.ray.stopping import signals_kept

SERVICER_FUNCTION = (
    "serving.protocols.open_inference.protos.inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server"
)
"""What Serve calls to learn which RPCs there are."""

POLL_S = 0.05
STATUS_EVERY_S = 0.5
NAMESPACE = "serve"


class Cluster:
    """A Ray, its own or another's, that runs applications.

    A context manager: on leaving it shuts down what it started, and deletes what it deployed to another's.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        grpc_port: int | None = None,
        address: str | None = None,
        cpus: int | None = None,
    ) -> None:
        self.host, self.port, self.grpc_port = host, port, grpc_port
        self._address = address
        self._cpus = cpus
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._cleanup_on_error():
            if self._address is None:
                check_port(self.host, self.port)
                self._start()
            else:
                self._join(self._address)
            self._start_serve()
        return self

    def __exit__(self, *exception: object) -> None:
        self._leave()

    def _leave(self) -> None:
        # Ray announces on stdout that its actors were killed, as it was told to.
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            self._cleanup.close()

    @contextlib.contextmanager
    def _cleanup_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._leave()
            raise

    def _start(self) -> None:
        import ray

        # The news that Ray asks its clients for a token, as it does by default, is not for our users.
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
        orphans.adopt()
        self._later(orphans.end_children)
        self._later(ray.shutdown)
        _stay_on_loopback()
        hook = setup_hook(self._grpc_host())
        with signals_kept():
            ray.init(
                # "local" always starts a Ray; no address would join whichever runs on this machine.
                address="local",
                include_dashboard=False,
                num_cpus=self._cpus,
                namespace=NAMESPACE,
                logging_level=logging.WARNING,
                runtime_env=None if self.grpc_port is None else {"worker_process_setup_hook": hook},
                _node_ip_address="127.0.0.1",
            )
        _show_replicas_only()

    def _grpc_host(self) -> str:
        """Return where Serve's own gRPC servers listen: behind HAProxy, or in its place."""
        return "127.0.0.1" if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1" else self.host

    def _join(self, address: str) -> None:
        import ray

        import serving

        self._later(ray.shutdown)  # leaves the cluster, which goes on
        package = str(Path(serving.__file__).parent)
        try:
            with signals_kept():
                ray.init(
                    address=address,
                    namespace=NAMESPACE,
                    logging_level=logging.WARNING,
                    runtime_env={"py_modules": [package]},
                )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ClusterUnreachable(address, next(iter(str(error).splitlines()), repr(error))) from error
        _show_replicas_only()

    def _start_serve(self) -> None:
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        if self._address is None:
            self._later(serve.shutdown)
        try:
            serve.start(
                proxy_location="HeadOnly",
                http_options={"host": self.host, "port": self.port},
                grpc_options=_grpc_options(self.grpc_port),
            )
        except RuntimeError as error:
            if "Failed to bind" in str(error):
                raise PortTaken(self.host, self.port, "taken while Ray started") from error
            raise
        self.host, self.port = _bound_to()
        if self.grpc_port is not None:
            self.grpc_port = _grpc_bound_to()

    def deploy(self, application: Any, name: str, route_prefix: str) -> None:
        """Submit the application; `wait` says when it answers. It is deleted when this cluster is left."""
        from ray import serve

        target = serve.RunTarget(application, name=name, route_prefix=route_prefix)
        # Before serve.shutdown, which takes the proxy away from under the requests that are being answered.
        self._later(lambda: serve.delete(name))
        if self._address is None:
            self._later(proxy.close)
        serve.run_many([target], wait_for_applications_running=False)

    def wait(self, name: str, url: str, timeout_s: float) -> None:
        """Wait until `url` answers 200 through the proxy.

        Raises:
            DeploymentFailed: a replica failed to start, or nothing answered in time.
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

    def _later(self, step: Callable[[], Any]) -> None:
        """Run the step on leaving, whatever becomes of those before it."""

        def attempt() -> None:
            with contextlib.suppress(Exception):
                step()

        self._cleanup.callback(attempt)


def _stay_on_loopback() -> None:
    """Make Ray take 127.0.0.1 for an answer: it puts the machine's own address in its place, and listens there.

    The switch is for systems whose firewalls ask about listeners; Ray has no public one.
    """
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = False


def _show_replicas_only() -> None:
    """Of all that Ray's processes print, show what the replicas do: warnings and failures, a line each."""
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

    def show(printed: dict[str, Any]) -> None:
        if str(printed.get("actor_name") or "").startswith("ServeReplica"):
            for line in printed["lines"]:
                sys.stderr.write(f"[replica {printed['pid']}] {line}\n")

    dispatcher.remove_handler("ray_print_logs")
    dispatcher.add_handler("ray_print_logs", show)


def _grpc_options(port: int | None) -> dict[str, Any] | None:
    """Return what makes Serve answer gRPC, None for no port."""
    return None if port is None else {"port": port, "grpc_servicer_functions": [SERVICER_FUNCTION]}


def check_port(host: str, port: int, option: str = "--port") -> None:
    """Raise PortTaken, naming the option to change, unless this process could listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        # As the server will: a connection of the last one that lingers is no obstacle.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise PortTaken(host, port, error.strerror or str(error), option) from error


def address_from(option: str | None) -> str | None:
    """Return the address of the Ray to join: the option's, or RAY_ADDRESS's; None to start one."""
    return option or os.environ.get("RAY_ADDRESS") or None


def _bound_to() -> tuple[str, int]:
    """Return where Serve listens: a cluster that ran it already keeps its own host and port."""
    from ray.serve.context import _get_global_client

    options = _get_global_client().http_config
    return options.host or "127.0.0.1", options.port


def _grpc_bound_to() -> int:
    """Return the port that Serve answers gRPC on. Raises GrpcNotStarted: a cluster that ran it already answers none."""
    import ray
    from ray.serve.context import _get_global_client

    options = ray.get(_get_global_client()._controller.get_grpc_config.remote())  # noqa: SLF001 - no other way
    if SERVICER_FUNCTION not in options.grpc_servicer_functions:
        raise GrpcNotStarted(SERVICER_FUNCTION)
    return int(options.port)


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=1) as answer:  # noqa: S310 - our own http URL
            return bool(answer.status == HTTPStatus.OK and answer.headers.get("X-Model-Version"))
    except (HTTPError, URLError, OSError):
        return False


def _raise_if_failed(name: str) -> None:
    from ray import serve

    application = serve.status().applications.get(name)
    if application is not None and application.status in ("DEPLOY_FAILED", "UNHEALTHY"):
        details = _messages(name)
        raise DeploymentFailed(_reason(details), details)


def _messages(name: str) -> str:
    from ray import serve

    application = serve.status().applications[name]
    return "\n".join([application.message, *(each.message for each in application.deployments.values())])


def _reason(details: str) -> str:
    """Return the line that says what happened in Serve's account of a failure, a traceback amid prose."""
    own = re.findall(r"^(?:serving\.errors\.|pydantic)\w+: (.+)$", details, flags=re.MULTILINE)
    raised = re.findall(r"^((?:\w+\.)*\w*(?:Error|Exception): .+)$", details, flags=re.MULTILINE)
    lines = [line for line in details.splitlines() if line.strip()]
    return str((own or raised or lines or ["no reason given"])[-1])
