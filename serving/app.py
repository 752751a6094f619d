"""The Serve deployment, and the builder for `serve run`, Serve config files and `python -m serving run`."""

# No `from __future__ import annotations`: Serve reads the type of build's parameter.
import asyncio
import os
import uuid
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from ray import is_initialized, serve
from ray.serve import Application

from serving.http.app import MAX_ONGOING_REQUESTS, PolicyApp
from serving.play.protocol import PLAY_SESSIONS
from serving.protocols.open_inference.grpc import InferenceServicer
from serving.ray import settings as engine
from serving.arguments import Autoscaling
from serving.registry import tracking
from serving.replica import identity as replica
from serving.replica.auth import BearerToken, read_token
from serving.replica.batching import Batching
from serving.replica.limits import MAX_BODY_BYTES, MAX_OBSERVATIONS, Limits
from serving.replica.metrics import Exporter
from serving.rollout.trial import GIB
from serving.startup import started

DEPLOYMENT_NAME = "policy"
SERVE_ONGOING_REQUESTS = 100_000
"""Out of reach: past Serve's own limit requests wait for an unbounded time; past ours they are refused at once."""


class Arguments(BaseModel):
    """What can be said about an application. Unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model_uri: str = Field(
        default="models:/cartpole-ppo/Production",
        description="Which version to serve: stage, @alias, number or latest.",
    )
    tracking_uri: str | None = Field(
        default=None,
        description="MLflow's tracking URI. Default: what MLFLOW_TRACKING_URI says where this is built.",
    )
    cache_dir: str | None = Field(default=None, description="Where each node keeps bundles. Default: the user's cache.")
    cache_bytes: int = Field(default=GIB, ge=0, description="Bytes of bundles each node keeps, beyond those in use.")
    refresh_interval_s: float = Field(default=2.0, gt=0, description="Seconds between looks at the registry.")
    allow_space_change: bool = Field(
        default=False, description="Serve a promoted version whose spaces differ from those served."
    )
    candidate_memory_bytes: int = Field(
        default=GIB, ge=1 << 20, description="Memory that a new version may take while it is tried."
    )
    candidate_timeout_s: float = Field(
        default=15.0, gt=0, description="Seconds that a new version may take to load and to answer once."
    )
    num_replicas: int = Field(default=1, ge=1, description="Processes that answer; not with `autoscaling`.")
    autoscaling: Autoscaling | None = Field(default=None, description="How the number of replicas follows the load.")
    num_threads: int = Field(default=1, ge=1, description="Threads that one replica computes one batch with.")
    max_ongoing_requests: int = Field(
        default=MAX_ONGOING_REQUESTS,
        ge=1,
        description="Requests that one replica may hold; more are refused (503) if the policy takes over 1 ms.",
    )
    max_batch_size: int = Field(
        default=16,
        ge=1,
        description="Observations of requests that came together, computed at once; 1: each alone.",
    )
    batch_wait_timeout_s: float = Field(
        default=0.0, ge=0, description="Seconds that the first request of a batch waits for others."
    )
    max_body_bytes: int = Field(default=MAX_BODY_BYTES, ge=1, description="Larger request bodies are refused (413).")
    max_observations: int = Field(
        default=MAX_OBSERVATIONS, ge=1, description="Observations that one request may hold; more are refused (413)."
    )
    auth_token_file: str | None = Field(
        default=None,
        description="File, on each node, with the bearer token to ask for. Default: anyone may ask.",
    )
    play_sessions: int = Field(
        default=PLAY_SESSIONS, ge=0, description="Viewers of /play that one replica plays for; 0 turns the page off."
    )
    access_log: bool = Field(default=False, description="Log each request; costs most of the tail latency.")

    @model_validator(mode="after")
    def _agree(self) -> "Arguments":
        if self.autoscaling is not None and "num_replicas" in self.model_fields_set:
            raise ValueError("num_replicas and autoscaling contradict each other: give one of them")
        if self.batch_wait_timeout_s and self.max_batch_size == 1:
            raise ValueError("batch_wait_timeout_s with a max_batch_size of 1 would only add latency: raise it")
        if self.autoscaling and self.autoscaling.target_ongoing_requests > self.max_ongoing_requests:
            raise ValueError("target_ongoing_requests above max_ongoing_requests is never reached: lower it")
        return self

    @property
    def limits(self) -> Limits:
        """How much one request may ask for, beside the size of its body."""
        return Limits(self.max_observations)

    @property
    def batching(self) -> Batching:
        """When requests are computed together."""
        return Batching(self.max_batch_size, self.batch_wait_timeout_s)


@serve.ingress()
class PolicyReplica(InferenceServicer):
    """One process that answers. It has a policy before it takes its first request."""

    async def __init__(self, arguments: Arguments, deployment: str) -> None:  # type: ignore[misc]  # Serve awaits it
        """Resolve, fetch, verify and load in a thread: the event loop goes on, for Serve's sake."""
        engine.tune_replica()
        token = BearerToken(read_token(arguments.auth_token_file)) if arguments.auth_token_file else None
        start = await asyncio.to_thread(started, arguments, deployment)
        self._app = app = PolicyApp(
            start.served,
            max_body_bytes=arguments.max_body_bytes,
            limits=arguments.limits,
            token=token,
            max_ongoing_requests=arguments.max_ongoing_requests,
            batching=arguments.batching,
            autoscaled=arguments.autoscaling is not None,
            play_sessions=arguments.play_sessions,
            refresh=start.refresh,
            replica=replica.this(arguments.num_replicas),
        )
        start.watch(app)
        exporter = Exporter(app.metrics, lambda: app.served.version.version, lambda: app.refresh)
        self._exporting = asyncio.create_task(exporter.run())

    def __serve_build_asgi_app__(self) -> PolicyApp:
        """Return the application that Serve's ingress calls."""
        return self._app


def build(arguments: Arguments) -> Application:
    """Build the application: `serve run serving.app:build --route-prefix /cartpole-ppo model_uri=...`.

    Where no Ray runs yet, the one that `serve run` is about to start gets the throughput settings.
    """
    if not is_initialized():
        engine.configure(arguments.max_body_bytes)
    # The replica's working directory is another's business: it gets a URI and a path that mean the same everywhere.
    uri = tracking.absolute_uri(arguments.tracking_uri or tracking.tracking_uri())
    token_file = arguments.auth_token_file and os.path.abspath(arguments.auth_token_file)  # noqa: PTH100 - None stays
    pinned = arguments.model_copy(update={"tracking_uri": uri, "auth_token_file": token_file})
    deployment = serve.deployment(
        name=DEPLOYMENT_NAME,
        **_scale(arguments),
        max_ongoing_requests=SERVE_ONGOING_REQUESTS,
        # At the start only: once it ran, Serve retries for ever.
        max_constructor_retry_count=2,
        **engine.HEALTH,
        logging_config=engine.logging_config(access_log=arguments.access_log),
    )
    return deployment(PolicyReplica).bind(pinned, uuid.uuid4().hex)


def _scale(arguments: Arguments) -> dict[str, Any]:
    if arguments.autoscaling is None:
        return {"num_replicas": arguments.num_replicas}
    return {"autoscaling_config": arguments.autoscaling.model_dump()}
