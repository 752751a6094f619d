"""Errors of starting, joining and deploying to Ray Serve."""

from dataclasses import dataclass

from serving.errors import ServingError


@dataclass(eq=False)
class PortTaken(ServingError):
    """Another process listens there."""

    host: str
    port: int
    reason: str
    option: str = "--port"

    def __str__(self) -> str:
        return f"cannot listen on {self.host}:{self.port} ({self.reason}). Choose another port with {self.option}"


@dataclass(eq=False)
class GrpcNotStarted(ServingError):
    """The cluster's Serve was started without gRPC, or with another's, which cannot be changed while it runs."""

    function: str

    def __str__(self) -> str:
        return (
            f"the cluster runs a Serve without gRPC. Leave --grpc-port out, or restart Serve with grpc_options whose "
            f"grpc_servicer_functions are [{self.function}]"
        )


@dataclass(eq=False)
class ClusterUnreachable(ServingError):
    """No Ray cluster lets this process in at the address."""

    address: str
    reason: str

    def __str__(self) -> str:
        return (
            f"cannot join the Ray cluster at {self.address}: {self.reason}. Where it asks for a token, set "
            f"RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        )


@dataclass(eq=False)
class DeploymentFailed(ServingError):
    """A replica did not come up; `details` holds what Ray Serve said."""

    reason: str
    details: str

    def __str__(self) -> str:
        return f"the policy could not be deployed: {self.reason}"
