"""The resolver of an application as a Ray actor, which exists only on clusters of several nodes.

The first node that needs it starts it beside its replica, where the code and MLflow's credentials are. It ends with
that replica, and then another node starts the next one. Serve has actors of its own for a deployment, but while one of
them does not run, Serve starts no replica.
"""

import logging
import threading
from contextlib import suppress
from time import monotonic
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from serving.arguments import Arguments
from serving.credentials import CredentialsFile
from serving.registry import tracking
from serving.registry.access import open_registry
from serving.registry.model_version import ModelVersion
from serving.rollout.refusals import Refusal
from serving.rollout.sharing.resolver import Answer, Resolver
from serving.uri_secrets import with_own_secrets

logger = logging.getLogger(__name__)

CONNECT_S = 30.0
"""The pause between two looks for other nodes, and between two attempts to reach the actor."""
ANSWER_S = 15.0
"""The least time to wait for an answer: requests to an MLflow server that hangs end before."""
ANSWER_INTERVALS = 3
"""The intervals to wait for an answer, if they are longer."""
MAX_NODES = 10_000
"""The nodes that may wait for the next poll at the same time."""


class RegistryResolver(Resolver):
    """Polls the registry for one application."""

    def __init__(self, arguments: Arguments) -> None:
        file = arguments.credentials_file
        self._credentials = CredentialsFile(file) if file is not None else None
        if self._credentials is not None:
            self._credentials.load()  # before MLflow reads them
        tracking.use(None, arguments.registry_uri, arguments.workspace)
        uri = with_own_secrets(arguments.tracking_uri) if arguments.tracking_uri else tracking.tracking_uri()
        self._registry, self._model_uri = open_registry(uri), arguments.model_uri
        super().__init__(self._ask, arguments.refresh_interval_s)

    def _ask(self) -> ModelVersion:
        if self._credentials is not None:
            self._credentials.load_if_changed()
        return self._registry.poll(self._model_uri)


class ResolverActor:
    """The actor as a replica asks it. Only the replica that polls for its node does.

    Everything that needs Ray's head runs in a thread: while the head is away, polls must not wait for it.
    """

    def __init__(self, arguments: Arguments, application: str, deployment: str) -> None:
        """Replicas of one `deployment`, which run the same code, share the actor."""
        self._name = f"resolver of {application} {deployment}"
        self._arguments = arguments
        self._handle: Any = None
        self._connecting: threading.Thread | None = None
        self._connect_at = 0.0

    def __call__(self, seen: int) -> Answer | None:
        """Return what `Resolver.next` returns; None if there is no actor, or not yet.

        Raises:
            RayError: the actor does not answer in time.
        """
        handle = self._handle
        if handle is None:
            self._connect_beside()
            return None
        try:
            limit_s = max(ANSWER_S, ANSWER_INTERVALS * self._arguments.refresh_interval_s)
            answer: Answer = ray.get(handle.next.remote(seen), timeout=limit_s)
        except RayActorError:  # it has ended with the replica that started it
            self._handle, self._connect_at = None, 0.0
            self._connect_beside()
            return None
        except BaseException:
            self._handle = None  # without handles, the actor ends
            raise
        return answer

    def share(self, refusals: list[Refusal]) -> list[Refusal]:
        """Return what `Resolver.share` returns; no refusals if there is no actor.

        Raises:
            RayError: the actor does not answer in time.
        """
        if (handle := self._handle) is None:
            return []
        shared: list[Refusal] = ray.get(handle.share.remote(refusals), timeout=ANSWER_S)
        return shared

    def _connect_beside(self) -> None:
        is_connecting = self._connecting is not None and self._connecting.is_alive()
        if not is_connecting and monotonic() >= self._connect_at:
            self._connect_at = monotonic() + CONNECT_S
            self._connecting = threading.Thread(target=self._connect, name="resolver", daemon=True)
            with suppress(RuntimeError):  # the machine has no thread left
                self._connecting.start()

    def _connect(self) -> None:
        """Start the actor, or find it, if the cluster has several nodes."""
        try:
            if sum(node["Alive"] for node in ray.nodes()) < 2:  # noqa: PLR2004
                return
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            actor = ray.remote(RegistryResolver).options(
                name=self._name, get_if_exists=True, num_cpus=0, max_concurrency=MAX_NODES, scheduling_strategy=here
            )
            self._handle = actor.remote(self._arguments)
        except Exception as error:  # noqa: BLE001 - Ray may raise any
            logger.warning("the application has no resolver, so each node asks the registry: %s", error)
