"""Simulates experiments: returns like those of CartPole and Pendulum, assignments, and clients that do not report."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from pipeline.experiment.statistics.decision import Decision, first_decision
from pipeline.experiment.statistics.episodes import Episodes
from pipeline.experiment.statistics.evidence import evidence
from pipeline.experiment.statistics.rules import Rules

Returns = Callable[[np.random.Generator, int], np.ndarray]


def cartpole(rng, size, failing=0.1):
    """The limit of 500 steps, but for some episodes in which the pole falls earlier."""
    return np.where(rng.random(size) < failing, rng.integers(10, 500, size), 500).astype(float)


def pendulum(rng, size):
    """Negative and skewed, with a long tail of bad episodes: -160 +- 99."""
    return -rng.gamma(2.6, 99 / 2.6**0.5, size)


MEAN = {cartpole: 500 - 0.1 * 245.5, pendulum: -99 * 2.6**0.5}
STD = {cartpole: (0.1 * (490**2 - 1) / 12 + 0.09 * 245.5**2) ** 0.5, pendulum: 99.0}


@dataclass(frozen=True)
class Simulated:
    """One kind of experiment: the champion's returns, and the challenger's, which differ by a constant."""

    returns: Returns
    difference: float = 0.0
    share: float | np.ndarray = 0.5
    episodes: int = 2000

    def episodes_of(self, rng) -> Episodes:
        size = self.episodes
        share = np.broadcast_to(np.asarray(self.share, float), (size,))
        challenger = rng.random(size) < share
        returns = self.returns(rng, size) + self.difference * challenger
        return Episodes(challenger, share, returns, np.ones(size, bool))

    def run(self, rules: Rules, rng) -> tuple[Decision, int, Episodes]:
        """Look after each episode, and return the decision, after how many episodes it came, and the episodes."""
        episodes = self.episodes_of(rng)
        count, decision = first_decision(evidence(episodes, rules), rules)
        return decision, count, episodes

    def decisions(self, rules: Rules, experiments: int, seed: int = 0) -> Counter:
        rng = np.random.default_rng(seed)
        return Counter(self.run(rules, rng)[0] for _ in range(experiments))


def interval(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of Clopper and Pearson (1934) of a probability, for `count` events of `total`."""
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, count, total - count + 1) if count else 0.0
    high = beta.ppf(1 - tail, count + 1, total - count) if count < total else 1.0
    return float(low), float(high)
