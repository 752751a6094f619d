"""`POST /feedback`: clients report the rewards of an episode, its return and its end.

It is idempotent: a value for a step, and the return and the end of an episode, replace those that were reported before.
Reports may come in any order, late, and to any replica. They are recorded before the response is sent.
"""

from collections.abc import Callable
from http import HTTPStatus

import orjson

from serving.experience.episodes import EpisodeHasher
from serving.policy.spaces import Json, describe
from serving.protocols.errors import FeedbackInvalid
from serving.protocols.feedback.events import Event, EventReader
from serving.protocols.feedback.paths import feedback_paths
from serving.protocols.json_body import counted, parse
from serving.protocols.openapi.parts import Paths
from serving.protocols.protocol import Protocol, Request, Response
from serving.replica.served_policy import ServedPolicy

PATH = "/feedback"
EVENTS = "events"

Report = Callable[[Event], None]
"""Records an event. Raises JournalFull."""


class FeedbackProtocol(Protocol):
    """`{"episode": "a", "rewards": [{"step": 3, "reward": 1.0}]}`, or a list of such `events`, -> `{"accepted": 1}`.

    Args:
        report: Records an event.
        hashed: Turns an episode's name into the hash under which it is stored.
        max_events: The maximum number of events in one request.
    """

    def __init__(self, report: Report, hashed: EpisodeHasher, max_events: int) -> None:
        self._report, self._hashed, self._max_events = report, hashed, max_events

    def methods(self, path: str) -> tuple[str, ...]:
        """Return the HTTP methods that a path accepts."""
        return ("POST",) if path == PATH else ()

    def prepare(self, served: ServedPolicy) -> None:
        """Build the reader for a version."""
        served.prepared(EventReader)

    async def answer(self, request: Request, served: ServedPolicy) -> Response:
        """Record the events of a request: all of them, or none if one is invalid. Raises RequestError, JournalFull."""
        reader = served.prepared(EventReader)
        events = [reader.read(value, path, self._hashed) for value, path in self._values(parse(request.body))]
        for event in events:
            self._report(event)
        return Response(orjson.dumps({"accepted": len(events)}), status=HTTPStatus.ACCEPTED)

    def paths(self, served: ServedPolicy) -> Paths:
        """Return OpenAPI's path items."""
        return feedback_paths(served, self._max_events)

    def _values(self, body: Json) -> list[tuple[Json, str]]:
        """Return the events of a body, and the place of each."""
        if type(body) is not dict or EVENTS not in body:
            return [(body, "body")]
        events = counted(body[EVENTS], self._max_events)
        if len(body) > 1 or type(events) is not list:
            expected = 'one event, or {"events": a list of them} and no other key'
            raise FeedbackInvalid(EVENTS, describe(events) if len(body) == 1 else "not the only key", expected)
        return [(event, f"{EVENTS}[{index}]") for index, event in enumerate(events)]
