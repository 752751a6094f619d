"""The codec of the native protocol: `{"observation": [...]}` -> `{"action": 1}`, their plurals, and options."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import orjson
from gymnasium import spaces

from serving.experience.episodes import Origin
from serving.policy.errors import OptionInvalid
from serving.policy.policy import Policy
from serving.policy.spaces import Json, describe, leaves
from serving.policy.state_tokens import StateCodec
from serving.policy.tensors import ACTION_DIST_INPUTS, ACTION_LOGP, VALUES, Batch, Rows, Tensors
from serving.protocols.episodes import KEYS, PLURAL_KEYS, Source, is_episode_name
from serving.protocols.errors import BodyNotJson, BodyNotObject, KeyUnknown, ObservationAmbiguous, ObservationMissing
from serving.protocols.json_body import counted, flag, noise_for, parse
from serving.protocols.native.actions import action_writer
from serving.protocols.native.leaf_reader import LeafReader
from serving.protocols.native.observations import ObservationReader
from serving.registry.model_version import ModelVersion
from serving.replica.limits import MAX_OBSERVATIONS

ONE, MANY = "observation", "observations"
STATE, STATES = "state", "states"
OPTIONS = ("explore", "seed", "details")
KNOWN_KEYS = {ONE: (ONE, STATE, *OPTIONS, *KEYS), MANY: (MANY, STATES, *OPTIONS, *PLURAL_KEYS)}

DETAILS = {ACTION_DIST_INPUTS: "action_dist_inputs", ACTION_LOGP: "action_logp", VALUES: "value"}
"""The optional outputs of the graph, and their names in the member `details` of a response."""


class Decoded(NamedTuple):
    """The content of a request."""

    observations: Batch
    """One array `[batch, *shape]` if the space is one array and there are no options or states, else rows."""
    batched: bool
    """Whether the request holds a list of observations, so that the response holds a list of actions."""
    origin: Origin | None = None
    """Where the observations come from, if the source of the request was given."""


def episode_key(body: bytes) -> str | None:
    """Return the name of the episode in the body of a request, None if there is no valid one."""
    if b"episode" not in body and b"\\" not in body:  # an escaped key is another spelling
        return None
    try:
        request = parse(body)
    except (BodyNotJson, RecursionError):
        return None
    name = request.get(KEYS[0]) if type(request) is dict else None
    return name if is_episode_name(name) else None


class JsonCodec:
    """Decodes request bodies and encodes response bodies for one version. The constructor raises SpaceUnsupported."""

    def __init__(self, policy: Policy, version: ModelVersion) -> None:
        interface, observation_space, action_space = policy.interface, policy.observation_space, policy.action_space
        self._observations, self._write = ObservationReader(observation_space), action_writer(action_space)
        self._policy = policy
        # A policy without states needs this as well: clients may still send those of the version before a promotion.
        self._states = StateCodec(interface.state_shapes, f"{version.name}/{version.version}", policy.digest)
        self._reader = LeafReader(leaves(observation_space)[0])
        # Requests with only observations, for spaces of one array, skip the construction of rows.
        nested = any(isinstance(space, spaces.Dict | spaces.Tuple) for space in (observation_space, action_space))
        self._plain_keys = 0 if nested or self._states.recurrent else 1

    def decode(self, body: bytes, max_observations: int = MAX_OBSERVATIONS, source: Source | None = None) -> Decoded:
        """Return the observations in a request body. Raises RequestError with the path of what does not fit.

        A list of more than `max_observations` is not read. `source` is what the headers of the request say.
        """
        request = parse(body)
        if type(request) is dict and len(request) == self._plain_keys:
            if ONE in request:
                origin = source and source.origin(1)
                if origin is None or not origin.explores:
                    return Decoded(self._reader.read(request[ONE]), batched=False, origin=origin)
            elif MANY in request:
                read = self._reader.read_batch(counted(request[MANY], max_observations))
                return Decoded(read, batched=True, origin=source and source.origin(len(read)))
        return self._decode_rows(_checked(request), max_observations, source)

    def encode(self, actions: Batch, *, batched: bool) -> bytes:
        """Return the response body for a policy's actions, which are finite: JSON has no NaN."""
        if isinstance(actions, Rows):
            return self._encode_rows(actions, batched=batched)
        written = actions.tolist()
        return orjson.dumps({"actions": written} if batched else {"action": written[0]})

    def _decode_rows(self, request: dict[str, Json], max_observations: int, source: Source | None) -> Decoded:
        batched, reader = MANY in request, self._observations
        tensors = reader.read_batch(counted(request[MANY], max_observations)) if batched else reader.read(request[ONE])
        batch = len(next(iter(tensors.values())))
        states, reset = self._states.read(*_states(request, batch, batched=batched))
        details = np.full(batch, flag(request, "details"))
        origin = source and source.origin(batch, request, batched=batched)
        noise, origin = noise_for(request, self._policy, batch, origin)
        return Decoded(Rows(tensors | noise | states, details, reset), batched, origin)

    def _encode_rows(self, rows: Rows, *, batched: bool) -> bytes:
        written: dict[str, Sequence[Json]] = {"action": self._write(rows.tensors) if len(rows) else []}
        if rows.details.any():
            written["details"] = _details(rows.tensors)
        if self._states.recurrent:
            written["state"] = self._states.write(rows.tensors) if len(rows) else []
        if rows.reset.any():
            written["state_reset"] = rows.reset.tolist()
        if not batched:
            return orjson.dumps({key: values[0] for key, values in written.items()})
        plural = {"action": "actions", "state": "states"}
        return orjson.dumps({plural.get(key, key): values for key, values in written.items()})


def _checked(request: Json) -> dict[str, Json]:
    """Return the request if it is an object with the keys of one. Raises RequestError."""
    if type(request) is not dict:
        raise BodyNotObject(describe(request))
    if ONE in request and MANY in request:
        raise ObservationAmbiguous
    if ONE not in request and MANY not in request:
        raise ObservationMissing(", ".join(f'"{key}"' for key in tuple(request)[:5]) or "no key")
    known = KNOWN_KEYS[ONE if ONE in request else MANY]
    for key in request:
        if key not in known:
            raise KeyUnknown(key, ", ".join(known))
    return request


def _states(request: dict[str, Json], batch: int, *, batched: bool) -> tuple[list[Json], list[str]]:
    """Return the state of each observation, None for the initial one, and its path in the request."""
    if not batched:
        return [request.get(STATE)], [STATE]
    states = request.get(STATES)
    if states is None:
        states = [None] * batch
    if type(states) is not list or len(states) != batch:
        found = f"a list of {len(states)}" if type(states) is list else describe(states)
        raise OptionInvalid(STATES, found, f"a list of one state per observation, {batch}")
    return states, [f"{STATES}[{index}]" for index in range(batch)]


def _details(tensors: Tensors) -> list[Json]:
    columns = {key: tensors[name].tolist() for name, key in DETAILS.items() if name in tensors}
    batch = len(next(iter(tensors.values())))
    return [{key: column[row] for key, column in columns.items()} for row in range(batch)]
