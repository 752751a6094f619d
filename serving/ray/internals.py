"""Every use of a private part of Ray and Ray Serve, for Ray 2.60; `haproxy_wrapper.py` edits its HAProxy template.

When a private part is gone, the server refuses to start if it would otherwise listen on other interfaces, and
continues with a warning in all other cases.
"""

import contextlib
import functools
import importlib
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from types import ModuleType
from typing import Any

from serving.ray.errors import RayIncompatible
from serving.telemetry.logs import forwarded

logger = logging.getLogger(__name__)

LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Without it Ray replaces 127.0.0.1 by the machine's own address and listens there. Ray reads it at import."""


def check_loopback() -> None:
    """Raise RayIncompatible unless a Ray that this process starts would listen on a loopback address."""
    import ray

    address = ray.util.get_node_ip_address()
    if not ip_address(address).is_loopback:
        raise RayIncompatible(
            ray.__version__, f"would listen on {address}", "Import ray only after serving.ray.settings.configure()"
        )


def check_grpc() -> None:
    """Raise RayIncompatible if `grpc_setup_hook` would leave Serve's gRPC servers on all interfaces."""
    import ray
    from ray.serve._private import default_impl, grpc_util

    start = getattr(grpc_util, "start_grpc_server", None)
    names = start.__code__.co_names if start else ()
    # The server must look the function up in default_impl each time, or the hook's replacement has no effect.
    replaceable = "add_grpc_address" in names and not hasattr(grpc_util, "add_grpc_address")
    if not (replaceable and hasattr(default_impl, "add_grpc_address")):
        raise RayIncompatible(
            ray.__version__,
            "has changed how Serve binds gRPC ports, so gRPC would listen on all interfaces",
            "Omit --grpc-port",
        )


def grpc_setup_hook(host: str) -> Callable[[], None]:
    """Return a `worker_process_setup_hook` after which Serve's gRPC servers listen on one host only.

    Serve binds them to all interfaces and has no setting for it. A worker in which the function to replace is missing
    does not start.
    """
    address = f"[{host}]" if ":" in host else host

    # cloudpickle sends a nested function by value. A worker cannot import this package when it starts.
    def bind_grpc() -> None:
        from ray.serve._private import default_impl

        def add_address(server: object, wanted: str) -> None:
            server.add_insecure_port(f"{address}:{wanted.rsplit(':', 1)[1]}")  # type: ignore[attr-defined]

        default_impl.add_grpc_address  # noqa: B018 - raises AttributeError if Serve no longer has it
        default_impl.add_grpc_address = add_address

    return bind_grpc


def print_replicas_only() -> None:
    """Print what replicas log, one line each, and nothing of Ray's other processes."""
    with _optional("the output of Ray's processes is printed unfiltered"):
        from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

        def show(printed: dict[str, Any]) -> None:
            if str(printed.get("actor_name") or "").startswith("ServeReplica"):
                for line in printed["lines"]:
                    sys.stderr.write(f"{forwarded(printed['pid'], line)}\n")

        dispatcher.remove_handler("ray_print_logs")
        dispatcher.add_handler("ray_print_logs", show)


def silence_token_notice() -> None:
    """Hide Ray's notice that it requires a token from its clients, which is its default."""
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)


def http_address() -> tuple[str, int] | None:
    """Return the host and port of the running Serve, None if they cannot be read."""
    with _optional("the address of the cluster's Serve is assumed to be the one in the options"):
        from ray.serve.context import _get_global_client

        options = _get_global_client().http_config
        return options.host or "127.0.0.1", options.port
    return None


def head_address() -> str | None:
    """Return the IP address of the cluster's head node, None if it cannot be found."""
    with _optional("this machine is assumed to be its head node"):
        import ray
        from ray._common.constants import HEAD_NODE_RESOURCE_NAME

        heads = [node for node in ray.nodes() if node["Alive"] and HEAD_NODE_RESOURCE_NAME in node["Resources"]]
        return str(heads[0]["NodeManagerAddress"]) if heads else None
    return None


def count_nodes() -> int:
    """Return how many nodes of the cluster are alive."""
    import ray

    return sum(node["Alive"] for node in ray.nodes())


def grpc_service() -> tuple[int, list[str]] | None:
    """Return the gRPC port and servicer functions of the running Serve, None if they cannot be read."""
    with _optional("the gRPC port of the cluster's Serve is assumed to be the one in the options"):
        import ray
        from ray.serve.context import _get_global_client

        options = ray.get(_get_global_client()._controller.get_grpc_config.remote())  # noqa: SLF001 - no public way
        return int(options.port), list(options.grpc_servicer_functions)
    return None


def is_from_config_file(application: str) -> bool:
    """Return whether the application was deployed from a config file, False if that cannot be read."""
    with _optional("an application that was deployed from a config file may be deleted"):
        from ray.serve.context import _get_global_client

        found = _get_global_client().get_serve_details()["applications"].get(application)
        return found is not None and found["source"] == "declarative"
    return False


def has_deployer(application: str) -> bool:
    """Return whether the process that deployed an application still runs, False if that cannot be found out."""
    with _optional("an application may be deleted whose server still runs"):
        import ray
        from ray._private import state
        from ray.serve.context import _get_global_client

        infos = ray.get(_get_global_client()._controller.list_deployments_internal.remote())  # noqa: SLF001
        deployers = {info.deployer_job_id for key, (info, _) in infos.items() if key.app_name == application}
        return any(job["JobID"] in deployers and not job["IsDead"] for job in state.jobs())
    return False


def serve_client(address: str) -> Any:
    """Return the client of Serve's REST API that Serve's own commands use, which sends Ray's token if it has one.

    Raises:
        ConnectionError, RuntimeError, ValueError: Ray's dashboard does not answer at the address.
    """
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    return ServeSubmissionClient(address)


def drop_request_metrics() -> None:
    """Drop the metrics that Serve records of each request in this replica, which has its own.

    Every 100 ms Serve exports them one by one in the event loop: at 4,000 requests/s it answers nothing for 2 ms.
    """
    with _optional("Serve records its own metrics of each request, which lengthen the tail of the latency"):
        from ray.serve._private.replica import ReplicaMetricsManager as Recorder

        for name in ("record_request_metrics", "record_ingress_request_metrics"):
            getattr(Recorder, name)  # raises AttributeError if Serve no longer has it
            setattr(Recorder, name, lambda *_, **__: None)


def send_responses_whole() -> None:
    """Have uvicorn, which answers HTTP in the replicas, send the head of a response together with its body.

    It would write the one after the other. If the replica is killed between them, HAProxy has passed on the head,
    and can no longer send the request to another replica.
    """
    with _optional("a replica that is killed may break off a response after its headers"):
        cycle: Any = importlib.import_module("uvicorn.protocols.http.httptools_impl").RequestResponseCycle
        if not getattr(cycle.send, "is_whole", False):
            cycle.send = _whole(cycle.send)


def _whole(write: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    async def send(cycle: Any, message: dict[str, Any]) -> None:
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()  # from here on, uvicorn does not wait
        transport, head = cycle.transport, cycle.__dict__.pop("unsent_head", b"")
        kept = _KeptHead() if message["type"] == "http.response.start" else None
        if kept is not None:
            cycle.transport = kept
        elif head and message.get("body") and not message.get("more_body") and cycle.scope["method"] != "HEAD":
            cycle.transport = _WithHead(transport, head)
        elif head:
            transport.write(head)
        try:
            await write(cycle, message)
        finally:
            cycle.transport = transport
        if kept is not None:
            cycle.unsent_head = kept.data

    send.is_whole = True  # type: ignore[attr-defined]
    return send


class _KeptHead:
    """In the place of a transport, keeps what is written."""

    data = b""

    def write(self, data: bytes) -> None:
        self.data += data


class _WithHead:
    """A transport that sends the head of a response before what is written."""

    def __init__(self, transport: Any, head: bytes) -> None:
        self._transport, self._head = transport, head

    def write(self, data: bytes) -> None:
        self._transport.write(self._head + data)
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@contextmanager
def needed_processes_only() -> Iterator[None]:
    """Have a Ray that starts within the context leave out two processes, and wait for no port of other Rays.

    Without its dashboard, Ray still starts the server of the dashboard and the monitor of its node autoscaler. Its
    agent waits 3.5 s for port 52365 where another Ray has it. `ray.init` has options for none of them. The agent logs
    an error each second until it has an address to report events to; the server without a dashboard takes none either.
    """
    with contextlib.ExitStack() as restored:
        with _optional("the server starts more slowly"):
            from ray._private import parameter, services

            lean = functools.partial(parameter.RayParams, no_monitor=True, dashboard_agent_listen_port=0)
            lean()  # raises TypeError if one of them is gone
            restored.enter_context(_replaced(parameter, "RayParams", lean))
            # What it returns for a dashboard that failed to start, without which Ray works.
            restored.enter_context(_replaced(services, "start_api_server", lambda *_, **__: (None, None)))
        yield
    with _optional("its agent logs an error each second"):
        from ray._private.ray_constants import DASHBOARD_ADDRESS, KV_NAMESPACE_DASHBOARD
        from ray.experimental.internal_kv import _internal_kv_put

        _internal_kv_put(DASHBOARD_ADDRESS, b"127.0.0.1:1", namespace=KV_NAMESPACE_DASHBOARD)


@contextmanager
def _replaced(module: ModuleType, name: str, value: object) -> Iterator[None]:
    """Replace an attribute of a module within the context. Raises AttributeError if it has none of that name."""
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


@contextmanager
def _optional(consequence: str) -> Iterator[None]:
    """Log a warning, and continue after the block, if a private part is gone."""
    try:
        yield
    except (ImportError, AttributeError, TypeError) as error:
        logger.warning("this Ray differs from Ray 2.60 (%s), so %s", error, consequence)
