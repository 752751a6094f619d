"""The binary records of a journal.

A segment is a sequence of frames. A frame is

    magic (4 bytes) | length of the payload (u32) | CRC-32 of the payload (u32) | payload

all little-endian. The first byte of a payload is its kind. HEADER, VERSION, FEEDBACK, DROPPED and EXPERIMENT are JSON
after that byte. DECISIONS is the answer to one request:

    kind u8 | flags u8 | protocol u16 | version u32 | rows u32 | time i64, ns since 1970 | seed u64
    rows x episode (16 bytes) | rows x step i64 | [rows x reward f64, if REWARDS] | [rows x seed u64, if ROW_SEEDS]
    each input tensor, C-contiguous `[rows, *shape]` | each output tensor

The tensors are those of the last VERSION record with the same version in the segment.
"""

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.experience.episodes import EPISODE_BYTES, Episodes
from serving.experiments.assignment import CHALLENGER, CHAMPION
from serving.experiments.experiment import Experiment

FORMAT = 1
MAGIC = b"\xa5RX\x01"
FRAME = struct.Struct("<4sII")
DECISIONS_HEAD = struct.Struct("<BBHIIqQ")

HEADER, VERSION, DECISIONS, FEEDBACK, DROPPED, EXPERIMENT = range(1, 7)
"""The kinds of records. Releases before EXPERIMENT skip it, and read all else."""

EXPLORED, SEEDED, ROW_SEEDS, REWARDS, DIGESTS, OMITTED, OF_CHAMPION, OF_CHALLENGER = (1 << bit for bit in range(8))
"""The flags of a DECISIONS record.

EXPLORED: the actions were sampled. SEEDED: row i has the noise of row i of `Noise.draw(rows, seed)`. ROW_SEEDS: each
row has the noise of `Noise.draw(1, seed)` with a seed of its own. DIGESTS: in place of each input tensor there is the
16-byte BLAKE2b hash of each row. OMITTED: there are no input tensors. OF_CHAMPION, OF_CHALLENGER: the request belongs
to that arm of the experiment that the last EXPERIMENT record of the segment describes.
"""

ARM_FLAGS = {CHAMPION: OF_CHAMPION, CHALLENGER: OF_CHALLENGER}
"""The flag of a record by its arm."""

DIGEST_BYTES = 16

NATIVE, INVOCATIONS, INFERENCE_HTTP, INFERENCE_GRPC = PROTOCOLS = (
    "native",
    "invocations",
    "inference_http",
    "inference_grpc",
)
"""The protocols by their number in a DECISIONS record."""


class TensorSpec(NamedTuple):
    """The name, the dtype and the shape of one tensor, without the batch."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """The size of one row."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class VersionSpec:
    """One version: which bundle it is, and the tensors of its decisions."""

    name: str
    version: int
    run_id: str | None
    digests: dict[str, str]
    """The sha256 of each file of the bundle."""
    registry: str
    """The registry's URI without credentials, as `ModelVersion.registry`."""
    inputs: tuple[TensorSpec, ...]
    """The inputs of the graph that a decision records, without the noise: observations and states."""
    outputs: tuple[TensorSpec, ...]
    """The actions."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of a VERSION record."""
        return asdict(self) | {
            "inputs": [list(each) for each in self.inputs],
            "outputs": [list(each) for each in self.outputs],
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "VersionSpec":
        """Return the version that `to_json` described."""
        sides = {side: tuple(_tensor_spec(each) for each in content[side]) for side in ("inputs", "outputs")}
        return cls(**(content | sides))


@dataclass(frozen=True)
class Decisions:
    """The decisions of one request, read from a record."""

    version: VersionSpec
    flags: int
    protocol: str
    time_ns: int
    seeds: list[int] | None
    """The seed of each row's noise, None if the actions are greedy."""
    noise_rows: list[int] | None
    """The row of `Noise.draw(rows, seed)` that is each row's noise."""
    episodes: Episodes
    inputs: dict[str, NDArray[Any]]
    """`[rows, *shape]` by name; with DIGESTS `[rows, 16]` uint8; with OMITTED empty."""
    outputs: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.episodes.ids)


def frame(payload: bytes) -> bytes:
    """Return a payload in its frame."""
    return FRAME.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload


def json_payload(kind: int, content: dict[str, Any]) -> bytes:
    """Return the payload of a record in JSON."""
    return bytes((kind,)) + json.dumps(content, separators=(",", ":")).encode()


def experiment_payload(experiment: Experiment) -> bytes:
    """Return the payload of an EXPERIMENT record. From it, the arm and the share of an episode can be computed."""
    names = ("id", "salt", "champion", "challenger", "expires_s")
    shares = [list(step) for step in experiment.shares]
    return json_payload(EXPERIMENT, {name: getattr(experiment, name) for name in names} | {"shares": shares})


def decisions_payload(
    version: VersionSpec,
    protocol: int,
    time_ns: int,
    episodes: Episodes,
    parts: Sequence[bytes],
    *,
    flags: int = 0,
    seed: int = 0,
    row_seeds: Sequence[int] = (),
) -> bytes:
    """Return the payload of a DECISIONS record. `parts` are the bytes of the input and the output tensors."""
    rows = len(episodes.ids)
    if episodes.rewards is not None:
        flags |= REWARDS
    if row_seeds:
        flags |= ROW_SEEDS
    head = DECISIONS_HEAD.pack(DECISIONS, flags, protocol, version.version, rows, time_ns, seed)
    columns = [head, *episodes.ids, struct.pack(f"<{rows}q", *episodes.steps)]
    if episodes.rewards is not None:
        columns.append(struct.pack(f"<{rows}d", *episodes.rewards))
    if row_seeds:
        columns.append(struct.pack(f"<{rows}Q", *row_seeds))
    return b"".join((*columns, *parts))


def read_decisions(payload: bytes, version: VersionSpec) -> Decisions:
    """Return the content of a DECISIONS record. Raises ValueError if it does not fit the version's tensors."""
    _, flags, protocol, number, rows, time_ns, seed = DECISIONS_HEAD.unpack_from(payload)
    if number != version.version:
        raise ValueError(f"a decision of version {number} with the tensors of version {version.version}")
    reader = _Reader(payload, DECISIONS_HEAD.size)
    raw = reader.take(rows * EPISODE_BYTES)
    ids = [raw[start : start + EPISODE_BYTES] for start in range(0, len(raw), EPISODE_BYTES)]
    steps = reader.numbers("<i8", rows)
    rewards = reader.numbers("<f8", rows) if flags & REWARDS else None
    seeds = noise_rows = None
    if flags & ROW_SEEDS:
        seeds, noise_rows = reader.numbers("<u8", rows), [0] * rows
    elif flags & SEEDED:
        seeds, noise_rows = [seed] * rows, list(range(rows))
    inputs = dict(_inputs(reader, version, rows, flags))
    outputs = {spec.name: reader.tensor(spec, rows) for spec in version.outputs}
    if reader.rest:
        raise ValueError(f"{reader.rest} bytes more than the tensors of version {number} have")
    episodes = Episodes(ids, steps, rewards)
    return Decisions(version, flags, PROTOCOLS[protocol], time_ns, seeds, noise_rows, episodes, inputs, outputs)


def _inputs(reader: "_Reader", version: VersionSpec, rows: int, flags: int) -> Iterator[tuple[str, NDArray[Any]]]:
    for spec in version.inputs if not flags & OMITTED else ():
        digest = TensorSpec(spec.name, "|u1", (DIGEST_BYTES,))
        yield spec.name, reader.tensor(digest if flags & DIGESTS else spec, rows)


def _tensor_spec(content: Sequence[Any]) -> TensorSpec:
    name, dtype, shape = content
    return TensorSpec(name, dtype, tuple(shape))


class _Reader:
    """Reads consecutive parts of a payload. Raises ValueError at its end."""

    def __init__(self, payload: bytes, start: int) -> None:
        self._payload, self._at = payload, start

    @property
    def rest(self) -> int:
        return len(self._payload) - self._at

    def take(self, size: int) -> bytes:
        if size > self.rest:
            raise ValueError(f"{self.rest} bytes where {size} are expected")
        self._at += size
        return self._payload[self._at - size : self._at]

    def numbers(self, dtype: str, count: int) -> list[Any]:
        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize), dtype).tolist()  # type: ignore[no-any-return]

    def tensor(self, spec: TensorSpec, rows: int) -> NDArray[Any]:
        return np.frombuffer(self.take(rows * spec.row_bytes), spec.dtype).reshape(rows, *spec.shape)
