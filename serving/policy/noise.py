"""The noise that makes an action a sample: drawn here, added to the distribution in the graph.

The index of the largest of logits plus Gumbel noise is a sample of their softmax (Gumbel 1954); mean + std * z, with
z standard normal, is a sample of a Gaussian.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.policy.errors import BundleInvalid
from serving.policy.spaces import Json

NOISE = "noise"
"""The graph's input, `[batch, size]` float32; zero, which is greedy, where it is not fed."""
DISTRIBUTIONS = ("gumbel", "normal")


class Part(NamedTuple):
    """Some columns of the noise."""

    distribution: str
    size: int


class Noise:
    """Draws what the parts describe, one after another in each row. Not to be shared between threads."""

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self.parts = parts
        self.size = sum(part.size for part in parts)
        self._generator = np.random.default_rng()

    @classmethod
    def from_json(cls, description: Json) -> "Noise":
        """Read `[{"distribution": "gumbel", "size": 2}, ...]` of policy.json. Raises BundleInvalid."""
        try:
            parts = tuple(Part(**part) for part in description)
            fault = any(part.distribution not in DISTRIBUTIONS or part.size < 1 for part in parts) or not parts
        except TypeError:
            fault = True
        if fault:
            expected = '[{"distribution": "gumbel" or "normal", "size": 2}, ...]'
            raise BundleInvalid("policy.json", f'"noise" is {str(description)[:200]}, expected {expected}')
        return cls(parts)

    def draw(self, batch: int, seed: int | None = None) -> NDArray[np.float32]:
        """Return noise, `[batch, size]`; with a seed always the same, whose first rows don't depend on `batch`."""
        if seed is None:
            drawn = [self._draw(part, batch, self._generator) for part in self.parts]
        else:
            generators = [np.random.default_rng([seed, index]) for index in range(len(self.parts))]
            drawn = [self._draw(part, batch, each) for part, each in zip(self.parts, generators, strict=True)]
        return np.concatenate(drawn, axis=1, dtype=np.float32, casting="same_kind")

    @staticmethod
    def _draw(part: Part, batch: int, generator: np.random.Generator) -> NDArray[Any]:
        sample = generator.gumbel if part.distribution == "gumbel" else generator.standard_normal
        return sample(size=(batch, part.size))
