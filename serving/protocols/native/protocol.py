"""The native protocol over HTTP: `/` answers observations, `/model` and `/health` describe the replica."""

from collections.abc import Callable
from typing import Any

import orjson

from serving.experience.journal.records import NATIVE
from serving.policy.spaces import Json
from serving.protocols.episodes import EpisodeReader, episode_of
from serving.protocols.native.json_codec import JsonCodec, episode_key
from serving.protocols.native.paths import native_paths
from serving.protocols.openapi.parts import Paths
from serving.protocols.protocol import Protocol, Request
from serving.replica.refresh_state import Refresh
from serving.replica.served_policy import ServedPolicy

METHODS = {"/": ("GET", "POST"), "/model": ("GET", "HEAD"), "/health": ("GET", "HEAD")}


class NativeProtocol(Protocol):
    """`{"observation": [...]}` -> `{"action": 1}`.

    Args:
        max_observations: The maximum number of observations in one request.
        replica: Returns the member `replica` of `/model`.
        refresh: Returns the state of the registry's poll.
        episodes: Reads which episodes a request names.
        online: Returns the member `online` of `/model`; None if no experience is recorded.
        experiment: Returns the member `experiment` of `/model`.
    """

    def __init__(
        self,
        max_observations: int,
        replica: Callable[[], dict[str, Json]],
        refresh: Callable[[], Refresh],
        episodes: EpisodeReader = EpisodeReader(),  # noqa: B008 - immutable
        online: Callable[[], dict[str, Json] | None] = lambda: None,
        experiment: Callable[[], dict[str, Json] | None] = lambda: None,
    ) -> None:
        self._max_observations, self._replica, self._refresh = max_observations, replica, refresh
        self._episodes, self._online, self._experiment = episodes, online, experiment

    def methods(self, path: str) -> tuple[str, ...]:
        """Return the HTTP methods that a path accepts."""
        return METHODS.get(path, ())

    def prepare(self, served: ServedPolicy) -> None:
        """Build the codec for a version."""
        served.prepared(JsonCodec)

    async def answer(self, request: Request, served: ServedPolicy) -> bytes:
        """Answer a request. Raises RequestError, Overloaded and PolicyFailed."""
        if request.path == "/":
            codec = served.prepared(JsonCodec)
            source = self._episodes.of_headers(NATIVE, request.scope["headers"])
            observations, batched, origin = codec.decode(request.body, self._max_observations, source)
            return codec.encode(await served.act(observations, origin), batched=batched)
        return orjson.dumps(self._model(served) if request.path == "/model" else self._health(served))

    def episode(self, request: Request) -> str | None:
        """Return the name of the episode in the header or the key `episode` of a request for actions."""
        if request.path != "/":
            return None
        return episode_of(request.scope["headers"]) or episode_key(request.body)

    def paths(self, served: ServedPolicy) -> Paths:
        """Return OpenAPI's path items."""
        return native_paths(served, self._max_observations)

    def _model(self, served: ServedPolicy) -> dict[str, Any]:
        replica = {"execution_provider": served.policy.provider, "replica": self._replica()}
        model = {**served.description, **replica, **self._refresh().describe(), "experiment": self._experiment()}
        online = self._online()
        return model if online is None else {**model, "online": online}

    def _health(self, served: ServedPolicy) -> dict[str, Any]:
        return {"status": self._refresh().status, "name": served.version.name, "version": served.version.version}
