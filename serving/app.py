"""The Serve deployment, and the builder for `serve run`, Serve config files and `python -m serving run`."""

# No `from __future__ import annotations`: Serve reads the type of build's parameter.
import asyncio
import contextlib
import logging
import os
import uuid
from pathlib import Path
from typing import Any

from ray import is_initialized, serve
from ray.serve import Application

from serving.arguments import Arguments
from serving.credentials import CredentialsFile
from serving.errors import ServingError, redacted
from serving.experience.start import Experience
from serving.http.cors import with_cors
from serving.http.direct_port import DirectPort
from serving.http.policy_app import PolicyApp
from serving.protocols.open_inference.grpc import InferenceServicer
from serving.ray import settings
from serving.ray.actors.resolver import ResolverActor
from serving.registry import tracking
from serving.registry.model_version import Resolved
from serving.release import release, warn_if_other
from serving.replica.auth import BearerToken
from serving.replica.identity import ReplicaCount, ReplicaIdentity
from serving.replica.metrics import Exporter
from serving.rollout.initial_policy import InitialPolicy, load_initial_policy
from serving.rollout.watcher import Watcher
from serving.telemetry import tracing
from serving.telemetry.request_ids import with_request_ids
from serving.uri_secrets import without_secrets

logger = logging.getLogger(__name__)

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
        settings.tune_replica(arguments.log_format, self._log_context)
        self._credentials = CredentialsFile(arguments.credentials_file) if arguments.credentials_file else None
        if self._credentials is not None:
            self._credentials.load()  # before MLflow reads them
        token = BearerToken.from_file(arguments.auth_token_file) if arguments.auth_token_file else None
        name = serve.get_replica_context().app_name
        start = await _load(arguments, deployment, resolved, name)
        await asyncio.to_thread(warn_if_other, arguments.release)
        of = ReplicaCount(arguments.largest_num_replicas, _num_replicas)
        replica = ReplicaIdentity(
            serve.get_replica_context().replica_id.unique_id, of, await asyncio.to_thread(release)
        )
        self._experience = await asyncio.to_thread(_experience, arguments, start.scope, name, replica.id)
        journal = None if self._experience is None else self._experience.journal
        await asyncio.to_thread(start.admission.crashes.enable)
        self._app = app = PolicyApp(
            start.served,
            arguments,
            token=token,
            refresh=start.refresh,
            replica=replica,
            journal=journal,
            refuse=start.admission.refusals.add,
            crashes=start.admission.crashes,
        )
        if start.challenge is not None:
            app.challenge = start.challenge
        self._asgi_app = _asgi_app(app, arguments)
        self._watcher = Watcher(app, start.admission, start.polls)
        self._watcher.start()
        self._exporting = asyncio.create_task(_exporter(app).run())
        if arguments.direct_port is not None:
            self._direct_port = DirectPort(with_request_ids(self._asgi_app), arguments.direct_port)
            self._direct_port.start()

    def __del__(self) -> None:
        """Stop polling. Serve calls it before it ends the replica, whose subprocesses end first."""
        with contextlib.suppress(AttributeError):  # the constructor failed
            self._watcher.stop()
        with contextlib.suppress(AttributeError):  # there is no direct port
            self._direct_port.stop()
        with contextlib.suppress(AttributeError):  # nothing is recorded
            self._experience.stop()  # type: ignore[union-attr]

    async def check_health(self) -> None:
        """Start the watcher again if its thread has died, and load changed credentials. Serve calls it every 2 s.

        It raises nothing: a replica without a watcher still answers requests, and Serve must not replace it.
        """
        if self._credentials is not None:
            self._credentials.load_if_changed()
        with contextlib.suppress(RuntimeError):  # the machine has no thread left
            self._watcher.start()

    def _log_context(self) -> dict[str, Any]:
        """Return what each line of the log in JSON says of this replica."""
        replica = serve.get_replica_context()
        context: dict[str, Any] = {"application": replica.app_name, "deployment": replica.deployment}
        context["replica"] = replica.replica_id.unique_id
        with contextlib.suppress(AttributeError):  # the constructor has not loaded a policy yet
            version = self._app.served.version
            context |= {"model": version.name, "version": version.version}
        return context

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
        # Replicas of a new release answer before those of the old one stop. If one fails to start, the old ones stay.
        max_surge_percent=100,
        # This applies to the first start and to a release. Once all replicas have run, Serve retries forever.
        max_constructor_retry_count=2,
        **settings.HEALTH,
        ray_actor_options={"num_cpus": 1, "num_gpus": arguments.reserved_gpus},
        logging_config=settings.logging_config(access_log=arguments.access_log, log_format=arguments.log_format),
    )
    return deployment(PolicyReplica).bind(_absolute(arguments), uuid.uuid4().hex, resolved=resolved)


async def _load(arguments: Arguments, deployment: str, resolved: Resolved | None, application: str) -> InitialPolicy:
    """Return the policy that a replica starts with. Its errors have no causes, as Ray logs them."""
    ask = ResolverActor(arguments, application, deployment)
    try:
        return await asyncio.to_thread(
            load_initial_policy, arguments, deployment, resolved, application=application, ask=ask, share=ask.share
        )
    except ServingError as error:
        raise error from None  # the causes, which are errors of other libraries, may show credentials
    except Exception as error:
        logger.exception("the policy cannot be loaded")  # without the credentials, as all records of this package
        raise RuntimeError(redacted(f"{type(error).__name__}: {error}")) from None


def _experience(arguments: Arguments, scope: str, application: str, replica: str) -> Experience | None:
    """Return what records the decisions of a replica, None if nothing does. `scope` names the application's files."""
    if arguments.experience is None:
        return None
    header = {"application": application, "model_uri": arguments.model_uri}
    directory, log_format = arguments.cache_directory, arguments.log_format
    experience = Experience(arguments.experience, directory, scope, replica, header, log_format)
    experience.start()
    return experience


def _asgi_app(app: PolicyApp, arguments: Arguments) -> Any:
    asgi_app = with_cors(app, arguments.cors_origin)
    return tracing.with_span_attributes(asgi_app) if tracing.is_on() else asgi_app


def _exporter(app: PolicyApp) -> Exporter:
    model = app.served.version.name
    return Exporter(app.metrics, model, lambda: app.served.version.version, lambda: app.refresh, app.numbers)


def _num_replicas() -> int:
    """Return how many replicas this replica's deployment has, with those that start."""
    context = serve.get_replica_context()
    states = serve.status().applications[context.app_name].deployments[context.deployment].replica_states
    return max(1, sum(int(number) for state, number in states.items() if state != "STOPPING"))


def _absolute(arguments: Arguments) -> Arguments:
    """Return the arguments as they mean the same in a replica, which has another directory and other variables.

    Serve stores the arguments, so the URIs have no passwords: a replica takes those from its own environment.

    Raises:
        CredentialsFileInvalid: The file cannot be read here, where the application is built.
    """
    names = ("auth_token_file", "credentials_file", "cache_dir", "experience_key_file")
    paths = {name: getattr(arguments, name) for name in names}
    if arguments.experience_uri and "://" not in arguments.experience_uri:
        paths["experience_uri"] = arguments.experience_uri
    absolute = {name: str(Path(path).absolute()) for name, path in paths.items() if path is not None}
    # What the file names, a replica takes from it.
    file = arguments.credentials_file
    in_file = CredentialsFile(file).read() if file is not None else {}
    here = {name: value for name, value in os.environ.items() if name not in in_file}
    uri = arguments.tracking_uri or (None if tracking.TRACKING_URI in in_file else tracking.tracking_uri())
    registry_uri = arguments.registry_uri or here.get(tracking.REGISTRY_URI)
    mlflow = {
        "tracking_uri": without_secrets(tracking.absolute_uri(uri)) if uri else None,
        "registry_uri": without_secrets(tracking.absolute_uri(registry_uri)) if registry_uri else None,
        "workspace": arguments.workspace or here.get(tracking.WORKSPACE) or None,
    }
    keys = tuple(str(Path(path).absolute()) for path in arguments.trusted_key)
    return arguments.model_copy(update={**mlflow, "trusted_key": keys, **absolute})
