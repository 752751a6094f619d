"""Errors of starting, joining and deploying to Ray Serve."""

import re
from dataclasses import dataclass

from serving.errors import ServingError


@dataclass(eq=False)
class PortTaken(ServingError):
    """The server cannot listen on a port."""

    host: str
    port: int
    reason: str
    option: str = "--port"

    template = "cannot listen on {host}:{port} ({reason}). Choose another port with {option}"


class HostInvalid(PortTaken):
    """The server cannot listen on an address, because it is none of this machine."""

    template = "cannot listen on {host}:{port} ({reason}). Give --host an address of this machine, or 0.0.0.0 for all"


@dataclass(eq=False)
class GrpcNotStarted(ServingError):
    """The cluster already runs a Serve without this gRPC service, which cannot be added while it runs."""

    function: str

    template = (
        "the cluster runs a Serve without gRPC. Omit --grpc-port, or restart Serve with grpc_options whose "
        "grpc_servicer_functions are [{function}]"
    )


@dataclass(eq=False)
class ClusterUnreachable(ServingError):
    """The Ray cluster at an address cannot be joined."""

    address: str
    reason: str

    template = (
        "cannot join the Ray cluster at {address}: {reason}. If it requires a token, set RAY_AUTH_MODE=token and "
        "RAY_AUTH_TOKEN"
    )


@dataclass(eq=False)
class ApplicationTaken(ServingError):
    """The cluster already runs an application of that name, which this server must neither replace nor delete."""

    name: str

    def __str__(self) -> str:
        return (
            f"the cluster already runs an application '{self.name}', which this server would replace. Choose another "
            "name with --name. If its server was killed, delete the application: python -m serving delete "
            f"{self.name} --ray-address HOST:PORT"
        )


@dataclass(eq=False)
class ApplicationOfServer(ServingError):
    """A server that joined the cluster runs an application of that name, and would delete it when it stops."""

    name: str

    template = (
        "the application '{name}' belongs to a `python -m serving run`. Stop that server, or choose another name. If "
        "it was killed, delete its application: python -m serving delete {name} --ray-address HOST:PORT"
    )


@dataclass(eq=False)
class ServerRuns(ServingError):
    """The server of an application still runs, so that it was not left behind."""

    name: str

    template = "the server of the application '{name}' still runs. Stop it, and it deletes the application"


@dataclass(eq=False)
class ApplicationOfFile(ServingError):
    """The application was deployed from a file, and not by a server that joined the cluster."""

    name: str

    template = "the application '{name}' was deployed from a file. Delete it without --ray-address"


@dataclass(eq=False)
class ApplicationMissing(ServingError):
    """The cluster runs no application of that name."""

    name: str
    running: str

    template = "the cluster runs no application '{name}'. Its applications: {running}"


@dataclass(eq=False)
class ApplicationNameInvalid(ServingError):
    """No application can have that name in HAProxy's configuration and in the header of gRPC clients."""

    name: str

    template = "the application's name '{name}' does not consist of letters, digits and . _ ~ -. Correct --name"


@dataclass(eq=False)
class RouteTaken(ServingError):
    """Another application of the cluster has the route."""

    route: str
    application: str

    template = "the route {route} belongs to the application '{application}'. Choose another with --route-prefix"


@dataclass(eq=False)
class DeploymentFailed(ServingError):
    """A replica failed to start; `details` holds Ray Serve's messages."""

    reason: str
    details: str

    template = "the policy could not be deployed: {reason}"


@dataclass(eq=False)
class GpusMissing(ServingError):
    """The replicas reserve more GPUs than Ray has found on this machine."""

    needed: float
    found: float

    template = (
        "the replicas need {needed:g} GPUs, and Ray found {found:g} on this machine. Lower --num-replicas, or let "
        "several share a GPU with --gpus-per-replica"
    )


@dataclass(eq=False)
class HaproxyNotExecutable(ServingError):
    """The HAProxy that the user chose cannot be executed."""

    path: str

    template = "RAY_SERVE_HAPROXY_BINARY_PATH={path} is not an executable file. Correct it, or unset it"


@dataclass(eq=False)
class RayIncompatible(ServingError):
    """The installed Ray lacks a private part that keeps the server private, so the server does not start."""

    version: str
    problem: str
    remedy: str

    template = "Ray {version} {problem}. {remedy}, or install Ray 2.60"


@dataclass(eq=False)
class NoExecutableDirectory(ServingError):
    """The script that starts HAProxy cannot be executed from any directory that the server may write."""

    directory: str
    cache: str

    template = (
        "HAProxy's script can be executed neither in {directory} nor in {cache} (noexec, or not writable). Set "
        "XDG_CACHE_HOME to a directory where it can, or RAY_SERVE_ENABLE_HA_PROXY=0 to serve more slowly without it"
    )


@dataclass(eq=False)
class RoutePrefixInvalid(ServingError):
    """No application can be served at a path prefix through HAProxy and Ray Serve."""

    prefix: str
    suggestion: str

    template = (
        "the route prefix '{prefix}' is not / or a path of letters, digits and . _ ~ - such as {suggestion}. Correct "
        "--route-prefix, or omit it"
    )


def failure_reason(details: str) -> str:
    """Return the line with the cause from Serve's messages, which mix prose and tracebacks."""
    own = re.findall(r"^serving\.(?:\w+\.)*errors\.\w+: (.+)$", details, flags=re.MULTILINE)
    raised = re.findall(r"^((?:\w+\.)*\w*(?:Error|Exception): .+)$", details, flags=re.MULTILINE)
    lines = [line for line in details.splitlines() if line.strip()]
    return str((own or raised or lines or ["Ray Serve gave no reason"])[-1])
