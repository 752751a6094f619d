"""Episodes of a made-up environment: correlated within, and on a level of their own."""

import numpy as np

from pipeline.drift.comparison import compare
from pipeline.reference.dimensions import Dimension
from pipeline.reference.reference import Reference
from pipeline.reference.sketches import Sketches, Steps

DIMENSIONS = (Dimension("0"), Dimension("1"), Dimension("2"), Dimension("gear", 3))
QUANTILES = 16


def episodes(generator, count, *, shift=0.0, start=1.0, gears=(0.5, 0.3, 0.2)):
    """Return episodes of 20 to 60 steps: three autoregressive numbers, and one category."""
    return [_episode(generator, shift, start, gears) for _ in range(count)]


def _episode(generator, shift, start, gears):
    length = int(generator.integers(20, 61))
    steps = np.empty((length, 4), np.float32)
    state, level = generator.normal(size=3) * start, generator.normal(size=3) / 2
    gear = generator.choice(3, p=gears)
    for step in range(length):
        if generator.random() < 0.1:
            gear = generator.choice(3, p=gears)
        steps[step] = [*(state + level + [shift, 0, 0]), gear]
        state = 0.9 * state + 0.1 * generator.normal(size=3)
    return Steps(length, steps)


def sketched(found):
    return Sketches.of(found, DIMENSIONS, QUANTILES)


def compared(seed, live=40, reference=40, alpha=0.01, **changes):
    """Compare new live episodes, which may differ, with a new reference."""
    generator = np.random.default_rng(seed)
    made = Reference(DIMENSIONS, sketched(episodes(generator, reference)), QUANTILES)
    return compare(made, sketched(episodes(generator, live, **changes)), alpha, seed)
