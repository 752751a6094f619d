"""reference.json: the observations of a version's final evaluation, dimension by dimension.

    {"format": 1, "episodes": 100, "steps": 48211, "quantiles_per_episode": 16, "lengths": [500, ...],
     "dimensions": [
       {"name": "0", "quantiles": [-2.31, ...], "first": "...", "sketches": "..."},
       {"name": "grip", "start": 0, "counts": [1200, 310], "first": "...", "sketches": "..."}]}

`quantiles` are 64 of all steps, from the smallest to the largest value; `counts` those of the categories. `first` and
`sketches` are what `Sketches` has of each episode: base64 of zlib of little-endian float32, one row per episode.
"""

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from gymnasium import Space
from numpy.typing import NDArray

from pipeline.environments.nested_spaces import stack
from pipeline.reference.dimensions import Dimension, Dimensions
from pipeline.reference.errors import ReferenceUnreadable
from pipeline.reference.sketches import Sketches, StepRecorder, quantiles_for
from serving.policy.tensors import OBSERVATIONS

REFERENCE_FILE = "reference.json"
FORMAT = 1
QUANTILES = 64


@dataclass(frozen=True)
class Reference:
    """The sketches of the episodes of a final evaluation, and the dimensions that they have."""

    dimensions: tuple[Dimension, ...]
    sketches: Sketches
    quantiles_per_episode: int

    @property
    def episodes(self) -> int:
        """The number of episodes."""
        return len(self.sketches)

    def to_bytes(self) -> bytes:
        """Return the content of reference.json."""
        described = zip(self.dimensions, self.sketches.first.T, self.sketches.values, strict=True)
        content = {
            "format": FORMAT,
            "episodes": self.episodes,
            "steps": int(self.sketches.lengths.sum()),
            "quantiles_per_episode": self.quantiles_per_episode,
            "lengths": self.sketches.lengths.tolist(),
            "dimensions": [self._described(*each) for each in described],
        }
        return json.dumps(content).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Return the reference of a file. Raises ReferenceUnreadable."""
        try:
            read = json.loads(content)
            if read["format"] != FORMAT:
                raise ReferenceUnreadable(f"its format is {read['format']!r}, and this release reads format {FORMAT}")
            lengths = np.array(read["lengths"], np.int64)
            dimensions = tuple(_dimension(each) for each in read["dimensions"])
            first = [_unpacked(each["first"], len(lengths))[:, 0] for each in read["dimensions"]]
            values = tuple(_unpacked(each["sketches"], len(lengths)) for each in read["dimensions"])
            return cls(
                dimensions, Sketches(lengths, np.stack(first, axis=1), values), int(read["quantiles_per_episode"])
            )
        except (ValueError, KeyError, TypeError, IndexError, zlib.error) as error:
            raise ReferenceUnreadable(repr(error)) from error

    def _described(
        self, dimension: Dimension, first: NDArray[np.float32], values: NDArray[np.float32]
    ) -> dict[str, Any]:
        lengths = self.sketches.lengths
        if dimension.categories:
            counts = np.rint(lengths @ values.astype(np.float64)).astype(int).tolist()
            summary = {"start": dimension.start, "counts": counts}
        else:
            summary = {"quantiles": quantiles_of(values, lengths, QUANTILES).tolist()}
        return {"name": dimension.name, **summary, "first": _packed(first[:, None]), "sketches": _packed(values)}


class ReferenceRecorder:
    """Makes the reference of episodes from the observations that `evaluation.play` shows it.

    Args:
        space: The space of the observations.
    """

    def __init__(self, space: Space[Any]) -> None:
        self._space, self._dimensions = space, Dimensions(space)
        self._steps = StepRecorder(len(self._dimensions))

    def __call__(self, episodes: Sequence[int], observations: Sequence[Any]) -> None:
        """Add one observation of each of some episodes, in the order of their steps."""
        numbers = self._dimensions.numbers(stack(self._space, observations, OBSERVATIONS))
        self._steps.add(episodes, numbers)

    def write(self, directory: Path) -> None:
        """Write reference.json into a directory."""
        (directory / REFERENCE_FILE).write_bytes(self.reference().to_bytes())

    def reference(self) -> Reference:
        """Return the reference of the episodes so far, at least one."""
        episodes, dimensions = self._steps.episodes(), self._dimensions.all
        quantiles = quantiles_for(len(episodes), len(dimensions))
        return Reference(dimensions, Sketches.of(episodes, dimensions, quantiles), quantiles)


def quantiles_of(values: NDArray[np.float32], lengths: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Return quantiles of the steps of all episodes, from the smallest value to the largest, `[count]`.

    Args:
        values: The quantiles of each episode, `[episodes, quantiles]`.
        lengths: The lengths of the episodes, `[episodes]`.
        count: How many quantiles to return.
    """
    flat = values.reshape(-1).astype(np.float64)
    weights = np.repeat(lengths.astype(np.float64), values.shape[1])
    order = np.argsort(flat, kind="stable")
    passed = np.cumsum(weights[order])
    wanted = np.linspace(0, 1, count) * passed[-1]
    return flat[order][np.minimum(np.searchsorted(passed, wanted), len(flat) - 1)]  # type: ignore[no-any-return]


def _dimension(content: dict[str, Any]) -> Dimension:
    return Dimension(str(content["name"]), len(content.get("counts", ())), int(content.get("start", 0)))


def _packed(values: NDArray[np.float32]) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values, "<f4").tobytes(), 9)).decode()


def _unpacked(text: str, rows: int) -> NDArray[np.float32]:
    values = np.frombuffer(zlib.decompress(base64.b64decode(text)), "<f4").reshape(rows, -1)
    return values.astype(np.float32)
