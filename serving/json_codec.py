"""The native protocol: `{"observation": [...]}` -> `{"action": 1}`, and the same in the plural."""

import json
from typing import Any, NamedTuple

import orjson
from gymnasium import Space
from numpy.typing import NDArray

from serving.actions import action_writer
from serving.errors import (
    BodyNotJson,
    BodyNotObject,
    KeyUnknown,
    ObservationAmbiguous,
    ObservationMissing,
    RequestError,
)
from serving.observations import describe, observation_reader
from serving.spaces import Json

ONE, MANY = "observation", "observations"


class Decoded(NamedTuple):
    """The observations of a request, `[batch, *shape]`, and whether it asked for a list of actions."""

    observations: NDArray[Any]
    batched: bool


class JsonCodec:
    """Decodes request bodies and encodes answers for one pair of spaces."""

    def __init__(self, observation_space: Space[Any], action_space: Space[Any]) -> None:
        self._reader = observation_reader(observation_space)
        self._write = action_writer(action_space)

    def decode(self, body: bytes) -> Decoded:
        """Return the observations in a request's body. Raises RequestError, saying what doesn't fit."""
        request = parse(body)
        if type(request) is dict and len(request) == 1:
            if ONE in request:
                return Decoded(self._reader.read(request[ONE]), batched=False)
            if MANY in request:
                return Decoded(self._reader.read_batch(request[MANY]), batched=True)
        raise _fault(request)

    def encode(self, actions: NDArray[Any], *, batched: bool) -> bytes:
        """Return the body that answers with `actions`, `[batch, ...]`. Raises PolicyFailed if not finite."""
        written = self._write(actions)
        return orjson.dumps({"actions": written} if batched else {"action": written[0]})


def parse(body: bytes) -> Json:
    """Parse JSON, with NaN and Infinity: Python clients that send them get a better answer than "not JSON".

    Raises:
        BodyNotJson: it is something else.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        reason = str(error)
    try:
        return json.loads(body)
    except RecursionError:
        raise BodyNotJson("it is nested too deeply") from None
    except ValueError:
        raise BodyNotJson(reason if body else "it is empty") from None


def _fault(request: Json) -> RequestError:
    if type(request) is not dict:
        return BodyNotObject(describe(request))
    if ONE in request and MANY in request:
        return ObservationAmbiguous()
    if ONE in request or MANY in request:
        return KeyUnknown(next(key for key in request if key not in (ONE, MANY)))
    return ObservationMissing(tuple(request)[:5])
