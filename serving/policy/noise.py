"""Noise for sampled actions: drawn here, and added to the distribution's parameters in the graph.

The index of the largest of logits plus Gumbel noise is a sample of their softmax (Gumbel 1954). mean + std * z is a
sample of a Gaussian if z is standard normal.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

from serving.policy.errors import BundleInvalid
from serving.policy.spaces import Json

DISTRIBUTIONS = ("gumbel", "normal")


class NoisePart(NamedTuple):
    """Consecutive columns of the noise that have one distribution."""

    distribution: str
    size: int


class _Words(ISeedSequence):
    """The words with which a bit generator begins, known before."""

    def __init__(self, words: NDArray[np.uint64]) -> None:
        self._words = words

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[Any]:  # noqa: ARG002 - PCG64 takes 4 u64
        """Return the words."""
        return self._words


def _generator_words(seeds: NDArray[np.uint64], index: int) -> NDArray[np.uint64]:
    """Return `SeedSequence([seed, index]).generate_state(4, np.uint64)` for each seed, `[seeds, 4]`.

    NumPy promises that the numbers never change. They are O'Neill's `seed_seq_fe` with a pool of four words
    (https://www.pcg-random.org/posts/developing-a-seed_seq-alternative.html).
    """
    low, high = seeds.astype(np.uint32), (seeds >> np.uint64(32)).astype(np.uint32)
    own = np.full(len(seeds), index, np.uint32)
    # A seed below 2**32 is one word, and the index is the second. Words that are missing are zeros.
    zeros = np.zeros_like(own)
    entropy = [low, np.where(high > 0, high, own), np.where(high > 0, own, zeros), zeros]
    constants = _constants(0x43B0D7E5, 0x931E8875)
    pool = [_hashed(word, *next(constants)) for word in entropy]
    for source in range(4):
        for target in range(4):
            if source != target:
                mixed = _hashed(pool[source], *next(constants))
                mixed = pool[target] * np.uint32(0xCA01F9DD) - mixed * np.uint32(0x4973F715)
                pool[target] = mixed ^ (mixed >> np.uint32(16))
    constants = _constants(0x8B51F9DD, 0x58F38DED)
    words = [_hashed(pool[position % 4], *next(constants)) for position in range(8)]
    return np.stack(words, axis=1).astype("<u4").view("<u8")


def _constants(value: int, factor: int) -> Iterator[tuple[np.uint32, np.uint32]]:
    """Yield the constants of one step of the hash after the other."""
    while True:
        following = value * factor % 2**32
        yield np.uint32(value), np.uint32(following)
        value = following


def _hashed(word: NDArray[np.uint32], first: np.uint32, second: np.uint32) -> NDArray[np.uint32]:
    word = (word ^ first) * second
    return word ^ (word >> np.uint32(16))


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

    def draw_each(self, seeds: NDArray[np.uint64]) -> NDArray[np.float32]:
        """Return `draw(1, seed)` for each seed, `[seeds, size]` float32, in a third of the time for thousands."""
        drawn = np.empty((len(seeds), self.size))
        start = 0
        for index, part in enumerate(self.parts):
            rows = drawn[:, start : start + part.size]
            for row, words in zip(rows, _generator_words(seeds, index), strict=True):
                generator = np.random.Generator(np.random.PCG64(_Words(words)))  # type: ignore[arg-type]  # of NumPy
                row[:] = self._draw(part, 1, generator)[0]
            start += part.size
        return drawn.astype(np.float32)

    @staticmethod
    def _draw(part: NoisePart, batch: int, generator: np.random.Generator) -> NDArray[Any]:
        sample = generator.gumbel if part.distribution == "gumbel" else generator.standard_normal
        return sample(size=(batch, part.size))
