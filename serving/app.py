"""The Serve deployment, and the builder for `serve run`, Serve config files and `python -m serving run`."""

# No `from __future__ import annotations`: Serve reads the type of build's parameter.
import asyncio
import contextlib
import uuid
from pathlib import Path
from typing import Any

from ray import is_initialized, serve
from ray.serve import Application

from serving.arguments import Arguments
from serving.client.token_file import read_token
from serving.credentials import CredentialsFile
from serving.errors import ServingError
from serving.http.cors import with_cors
from serving.http.direct_port import DirectPort
from serving.http.policy_app import PolicyApp
from serving.protocols.open_inference.grpc import InferenceServicer
from serving.ray import settings
from serving.registry import tracking
from serving.registry.model_version import Resolved
from serving.replica.auth import BearerToken
from serving.replica.identity import ReplicaIdentity
from serving.replica.metrics import Exporter
from serving.rollout.initial_policy import load_initial_policy
from serving.rollout.watcher import Watcher

DEPLOYMENT_NAME = "policy"
SERVE_ONGOING_REQUESTS = 100_000
"""Serve's limit on concurrent requests, set so high that it never applies: Serve queues requests above its limit for an
unbounded time, while the application rejects them at once."""


@serve.ingress()
class PolicyReplica(InferenceServicer):
    """One replica process. It has loaded a policy before it receives its first request."""

    _app: PolicyApp

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, arguments: Arguments, deployment: str, resolved: Resolved | None = None
    ) -> None:
        """Resolve, fetch, verify and load the policy in a thread, because Serve needs the event loop meanwhile."""
        settings.tune_replica()
        self._credentials = CredentialsFile(arguments.credentials_file) if arguments.credentials_file else None
        if self._credentials is not None:
            self._credentials.load()  # before MLflow reads them
        token = BearerToken(read_token(arguments.auth_token_file)) if arguments.auth_token_file else None
        try:
            start = await asyncio.to_thread(load_initial_policy, arguments, deployment, resolved)
        except ServingError as error:
            raise error from None  # Ray logs causes, and those of other libraries may show credentials
        replica = ReplicaIdentity(serve.get_replica_context().replica_id.unique_id, arguments.largest_num_replicas)
        self._app = app = PolicyApp(start.served, arguments, token=token, refresh=start.refresh, replica=replica)
        self._asgi_app = with_cors(app, arguments.cors_origin)
        self._watcher = Watcher(app, start.admission)
        self._watcher.start()
        exporter = Exporter(app.metrics, lambda: app.served.version.version, lambda: app.refresh)
        self._exporting = asyncio.create_task(exporter.run())
        if arguments.direct_port is not None:
            self._direct_port = DirectPort(self._asgi_app, arguments.direct_port)
            self._direct_port.start()

    def __del__(self) -> None:
        """Stop polling. Serve calls it before it ends the replica, whose subprocesses end first."""
        with contextlib.suppress(AttributeError):  # the constructor failed, or there is no direct port
            self._watcher.stop()
            self._direct_port.stop()

    async def check_health(self) -> None:
        """Start the watcher again if its thread has died, and load changed credentials. Serve calls it every 2 s.

        It raises nothing: a replica without a watcher still answers requests, and Serve must not replace it.
        """
        if self._credentials is not None:
            self._credentials.load_if_changed()
        with contextlib.suppress(RuntimeError):  # the machine has no thread left
            self._watcher.start()

    def __serve_build_asgi_app__(self) -> Any:
        """Return the application that Serve's ingress calls."""
        return self._asgi_app


def build(arguments: Arguments) -> Application:
    """Build the application: `serve run serving.app:build --route-prefix /cartpole-ppo model_uri=...`.

    If no Ray runs yet, the throughput settings are set for the one that `serve run` is about to start.
    """
    return application(arguments)


def application(arguments: Arguments, resolved: Resolved | None = None) -> Application:
    """Build the application as `build`, whose replicas start with a recently `resolved` version."""
    if not is_initialized():
        settings.configure(arguments.max_body_bytes, own_ray=False)
    if arguments.autoscaling is None:
        scaling: dict[str, Any] = {"num_replicas": arguments.num_replicas}
    else:
        scaling = {"autoscaling_config": arguments.autoscaling.model_dump()}
    deployment = serve.deployment(
        name=DEPLOYMENT_NAME,
        **scaling,
        max_ongoing_requests=SERVE_ONGOING_REQUESTS,
        # This applies to the first start only: once a replica has run, Serve retries forever.
        max_constructor_retry_count=2,
        **settings.HEALTH,
        ray_actor_options={"num_cpus": 1, "num_gpus": arguments.reserved_gpus},
        logging_config=settings.logging_config(access_log=arguments.access_log),
    )
    return deployment(PolicyReplica).bind(_absolute(arguments), uuid.uuid4().hex, resolved=resolved)


def _absolute(arguments: Arguments) -> Arguments:
    """Return the arguments with an absolute URI and absolute paths: a replica has another working directory.

    Raises:
        CredentialsFileInvalid: The file cannot be read here, where the application is built.
    """
    paths = {name: getattr(arguments, name) for name in ("auth_token_file", "credentials_file", "cache_dir")}
    absolute = {name: str(Path(path).absolute()) for name, path in paths.items() if path is not None}
    file = arguments.credentials_file
    if arguments.tracking_uri is None and file is not None and "MLFLOW_TRACKING_URI" in CredentialsFile(file).read():
        return arguments.model_copy(update=absolute)  # a URI with a password stays in the file
    uri = tracking.absolute_uri(arguments.tracking_uri or tracking.tracking_uri())
    return arguments.model_copy(update={"tracking_uri": uri, **absolute})
