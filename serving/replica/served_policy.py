"""A policy that a replica answers requests with, and everything that depends on its version."""

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from serving.experience.episodes import Origin
from serving.policy.policy import Policy
from serving.policy.spaces import Json, space_to_json
from serving.policy.tensors import Batch
from serving.registry.model_version import ModelVersion
from serving.replica.batching import Batcher

Headers = list[tuple[bytes, bytes]]


class Act(Protocol):
    """Computes actions for observations, batched with those of other requests."""

    def __call__(self, observations: Batch, origin: Origin | None = None) -> Awaitable[Batch]:
        """Return the actions, and record them as decisions about observations of that origin.

        Raises Overloaded, PolicyFailed and JournalFull.
        """


Prepared = TypeVar("Prepared")
Prepare = Callable[[Policy, ModelVersion], Prepared]
"""A function that computes what a protocol needs for one version, such as its codec."""


class ServedPolicy:
    """One version's policy, its batcher, and what the protocols prepared for it. A promotion replaces all of it.

    The application that serves it sets `batcher` and `act` before the first request.
    """

    batcher: Batcher
    """Batches the requests for this version alone."""
    act: Act
    """Computes the actions of one request through the batcher, within the limits of the application."""
    fallback: "ServedPolicy | None" = None
    """The policy that answers a request again when this one fails, None if there is none: the version before it."""
    was_stuck = False
    """Whether its fallback has answered a request that was late because a call of this one took too long."""
    is_withdrawn = False
    """Whether it has failed where its fallback did not, so that it answers no more."""
    whole: "ServedPolicy"
    """The policy itself, also of a copy that answers the requests of one arm of an experiment."""

    def __init__(self, policy: Policy, version: ModelVersion, *, loaded_at: float | None = None) -> None:
        self.whole = self
        self.policy = policy
        self.version = version
        self.loaded_at = datetime.fromtimestamp(time.time() if loaded_at is None else loaded_at, UTC)
        self.labels = _labels(version)
        """The response headers that name the model and the version."""
        self.headers = [(b"content-type", b"application/json"), *self.labels]
        """The headers of a JSON response."""
        self.description = self._description()
        self._prepared: dict[Prepare[Any], Any] = {}

    def prepared(self, prepare: Prepare[Prepared]) -> Prepared:
        """Return `prepare(policy, version)`, which is computed once. Raises what `prepare` raises."""
        try:
            return self._prepared[prepare]  # type: ignore[no-any-return]
        except KeyError:
            return self._prepared.setdefault(prepare, prepare(self.policy, self.version))  # type: ignore[no-any-return]

    def _description(self) -> Mapping[str, Json]:
        policy, version = self.policy, self.version
        return {
            "name": version.name,
            "version": version.version,
            "model_uri": version.uri,
            "stage": version.stage,
            "run_id": version.run_id,
            "environment": policy.environment.to_json(),
            "observation_space": space_to_json(policy.observation_space),
            "action_space": space_to_json(policy.action_space),
            "explores": policy.interface.noise is not None,
            "recurrent": bool(policy.interface.state_shapes),
            "evaluation": version.evaluation,
            "loaded_at": self.loaded_at.isoformat(timespec="seconds"),
        }


def _labels(version: ModelVersion) -> Headers:
    return [
        # Header values are ASCII; model names need not be.
        (b"x-model-name", quote(version.name, safe=" !#$&'()*+,;=?[]").encode("ascii")),
        (b"x-model-version", b"%d" % version.version),
    ]
