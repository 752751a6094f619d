"""State tokens: the state of a recurrent policy as text that clients send back with the next observation.

The server keeps no sessions, so any replica can answer any step. Only the version that wrote a token reads it. A token
is the base64 encoding of

    the version's id (8 bytes) | the states, float32 little-endian, sorted by name | a MAC (16 bytes) of both

The key of the MAC is the digest of the bundle: all replicas of a version have it, and the API does not reveal it.
"""

import base64
import binascii
import hashlib
import hmac
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.policy.errors import StateInvalid
from serving.policy.spaces import Json, describe
from serving.policy.tensors import STATE_IN, STATE_OUT, Tensors

DTYPE = np.dtype("<f4")
ID_BYTES, MAC_BYTES = 8, 16

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of each state of a policy by its name, without the batch; empty if the policy is not recurrent."""


class StateCodec:
    """Reads and writes the state tokens of one version, whose name and `key` are the same in all replicas."""

    def __init__(self, shapes: Shapes, version: str = "", key: bytes = b"") -> None:
        self.recurrent = bool(shapes)
        self._shapes = dict(sorted(shapes.items()))
        self._sizes = [math.prod(shape) for shape in self._shapes.values()]
        self._id = hashlib.sha256(version.encode() + key).digest()[:ID_BYTES]
        self._key = key

    def read(self, states: list[Json], paths: list[str]) -> tuple[Tensors, NDArray[np.bool_]]:
        """Return the graph's state inputs, and which rows came with the token of another version.

        Rows with the token of another version get the initial state, as those whose state is None.

        Args:
            states: one token per row, or None.
            paths: the place of each token in the request, for messages.

        Raises:
            StateInvalid: a token is malformed or was changed.
        """
        rows = [self._read_one(state, path) for state, path in zip(states, paths, strict=True)]
        reset = [row is None and state is not None for row, state in zip(rows, states, strict=True)]
        tensors = self.initial(len(rows))
        for number, row in enumerate(rows):
            if row is not None:
                self._fill(tensors, number, row)
        return tensors, np.array(reset, np.bool_)

    def write(self, tensors: Tensors) -> list[str]:
        """Return the token of each row, from the graph's state outputs."""
        columns = [tensors[STATE_OUT + name] for name in self._shapes]
        flat = np.concatenate([column.reshape(len(column), -1) for column in columns], axis=1, dtype=DTYPE)
        return [self._sign(self._id + row.tobytes()) for row in flat]

    def initial(self, batch: int) -> Tensors:
        """Return the initial state: zeros for each state input of the graph, `[batch, *shape]` float32."""
        return {STATE_IN + name: np.zeros((batch, *shape), np.float32) for name, shape in self._shapes.items()}

    def _fill(self, tensors: Tensors, row: int, numbers: NDArray[Any]) -> None:
        start = 0
        for (name, shape), size in zip(self._shapes.items(), self._sizes, strict=True):
            tensors[STATE_IN + name][row] = numbers[start : start + size].reshape(shape)
            start += size

    def _sign(self, content: bytes) -> str:
        return base64.b64encode(content + self._mac(content)).decode()

    def _mac(self, content: bytes) -> bytes:
        return hmac.digest(self._key, content, "sha256")[:MAC_BYTES]

    def _read_one(self, state: Json, path: str) -> NDArray[Any] | None:
        """Return the numbers of one token, None for the initial state or the token of another version."""
        if state is None:
            return None
        content = _decoded(state, path)
        if content[:ID_BYTES] != self._id:
            return None
        signed, mac = content[:-MAC_BYTES], content[-MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(signed)):
            raise StateInvalid(path, "was not written by this server, or was changed")
        return np.frombuffer(signed[ID_BYTES:], DTYPE)


def _decoded(state: Json, path: str) -> bytes:
    if type(state) is not str:
        raise StateInvalid(path, f"is {describe(state)}, expected a string")
    try:
        content = base64.b64decode(state, validate=True)
    except (ValueError, binascii.Error):
        raise StateInvalid(path, "is not base64") from None
    payload = len(content) - ID_BYTES - MAC_BYTES
    if payload <= 0 or payload % DTYPE.itemsize:
        raise StateInvalid(path, "is cut off")
    return content
