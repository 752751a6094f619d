"""The state of recurrent policies, as clients carry it: opaque text that only the version that wrote it reads.

The server keeps no session, so that any replica can answer any step. A state is base64 of

    the version's id (8 bytes) | arrays, float32 little-endian, by name | a MAC (16 bytes) of all before it

The MAC's key is the digest of the bundle, which every replica has and no client of the HTTP API is told.
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
from serving.policy.rows import Tensors
from serving.policy.spaces import Json
from serving.protocols.native.leaf_reader import describe

STATE_IN, STATE_OUT = "state_in.", "state_out."
"""Prefixes of the graph's inputs and outputs."""

DTYPE = np.dtype("<f4")
ID_BYTES, MAC_BYTES = 8, 16

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of each of a policy's states, without the batch; none for a policy that isn't recurrent."""


class StateCodec:
    """Reads and writes the states of one version.

    Args:
        shapes: of the policy's states.
        version: what names the version; equal in all of its replicas.
        key: what only its replicas know.
    """

    def __init__(self, shapes: Shapes, version: str = "", key: bytes = b"") -> None:
        self.recurrent = bool(shapes)
        self._shapes = dict(sorted(shapes.items()))
        self._sizes = [math.prod(shape) for shape in self._shapes.values()]
        self._id = hashlib.sha256(version.encode() + key).digest()[:ID_BYTES]
        self._key = key

    def read(self, states: list[Json], paths: list[str]) -> tuple[Tensors, NDArray[np.bool_]]:
        """Return the graph's inputs for one state per row, and which rows had another version's.

        Args:
            states: text, or None for the initial state.
            paths: what each is called in the request.

        Raises:
            StateInvalid: one of them was not written by a version of this model, or was changed.
        """
        rows = [self._read_one(state, path) for state, path in zip(states, paths, strict=True)]
        reset = [row is None and state is not None for row, state in zip(rows, states, strict=True)]
        tensors = self.initial(len(rows))
        for number, row in enumerate(rows):
            if row is not None:
                self._fill(tensors, number, row)
        return tensors, np.array(reset, np.bool_)

    def write(self, tensors: Tensors) -> list[str]:
        """Return the text of each row's state, from the graph's outputs."""
        columns = [tensors[STATE_OUT + name] for name in self._shapes]
        flat = np.concatenate([column.reshape(len(column), -1) for column in columns], axis=1, dtype=DTYPE)
        return [self._sign(self._id + row.tobytes()) for row in flat]

    def initial(self, batch: int) -> Tensors:
        """Return the graph's inputs for rows that begin: zeros, `[batch, *shape]` each."""
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
        """Return one row's numbers, None for the initial state."""
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
