"""Noise for sampled actions: drawn here, and added to the distribution's parameters in the graph.

The index of the largest of logits plus Gumbel noise is a sample of their softmax (Gumbel 1954). mean + std * z is a
sample of a Gaussian if z is standard normal.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.policy.errors import BundleInvalid
from serving.policy.spaces import Json

DISTRIBUTIONS = ("gumbel", "normal")


class NoisePart(NamedTuple):
    """Consecutive columns of the noise that have one distribution."""

    distribution: str
    size: int


class Noise:
    """Draws the parts' noise, side by side in each row. Not safe to share between threads."""

    def __init__(self, parts: tuple[NoisePart, ...]) -> None:
        self.parts = parts
        self.size = sum(part.size for part in parts)
        self._generator = np.random.default_rng()

    @classmethod
    def from_json(cls, description: Json) -> "Noise":
        """Build it from `[{"distribution": "gumbel", "size": 2}, ...]` of policy.json. Raises BundleInvalid."""
        try:
            parts = tuple(NoisePart(**part) for part in description)
            fault = any(part.distribution not in DISTRIBUTIONS or part.size < 1 for part in parts) or not parts
        except TypeError:
            fault = True
        if fault:
            expected = '[{"distribution": "gumbel" or "normal", "size": 2}, ...]'
            raise BundleInvalid("policy.json", f'"noise" is {str(description)[:200]}, expected {expected}')
        return cls(parts)

    def draw(self, batch: int, seed: int | None = None) -> NDArray[np.float32]:
        """Return noise, `[batch, size]` float32.

        The same seed returns the same noise, and row i does not depend on `batch`. Each part has its own stream.
        """
        if seed is None:
            drawn = [self._draw(part, batch, self._generator) for part in self.parts]
        else:
            generators = [np.random.default_rng([seed, index]) for index in range(len(self.parts))]
            drawn = [self._draw(part, batch, each) for part, each in zip(self.parts, generators, strict=True)]
        return np.concatenate(drawn, axis=1, dtype=np.float32, casting="same_kind")

    def draw_rows(self, seeds: Sequence[int]) -> NDArray[np.float32]:
        """Return noise, `[len(seeds), size]` float32, whose row i is `draw(1, seeds[i])`."""
        rows = [self.draw(1, seed) for seed in seeds]
        return np.concatenate(rows) if rows else np.empty((0, self.size), np.float32)

    @staticmethod
    def _draw(part: NoisePart, batch: int, generator: np.random.Generator) -> NDArray[Any]:
        sample = generator.gumbel if part.distribution == "gumbel" else generator.standard_normal
        return sample(size=(batch, part.size))
