"""Measures the seconds of training until greedy episodes, and the last 100 training episodes, reach a mean of 475.

`python -m benchmarks.training_yardstick PEER SEED` prints one line of JSON.
"""

import json
import logging
import sys
import time
from dataclasses import asdict, dataclass, field

from benchmarks.training_peers import ENV_ID, PEERS, greedy
from pipeline.environments import make as environments
from pipeline.evaluation import evaluation

TARGET = 475.0
EVALUATION_EVERY = 4096
EPISODES = 100
FIRST_SEED = 1_000_000
MAX_STEPS = 150_000


@dataclass
class Measured:
    """The measurements of one peer and seed, in wall seconds of sampling and learning; None if it missed the target."""

    peer: str
    seed: int
    greedy_s: float | None = None
    greedy_steps: int | None = None
    last_100_s: float | None = None
    last_100_steps: int | None = None
    greedy_curve: list[tuple[float, int, float]] = field(default_factory=list)
    last_100_curve: list[tuple[float, int, float]] = field(default_factory=list)


def measure(name: str, seed: int) -> Measured:
    """Train until both means reach the target, or for MAX_STEPS."""
    environment = environments.describe(ENV_ID)
    peer = PEERS[name](seed)
    measured = Measured(name, seed)
    trained_s, next_evaluation = 0.0, EVALUATION_EVERY
    begun = time.perf_counter()
    for update in peer.updates():
        trained_s += time.perf_counter() - begun
        measured.last_100_curve.append((trained_s, update.env_steps, update.return_mean_100))
        if measured.last_100_s is None and update.return_mean_100 >= TARGET:
            measured.last_100_s, measured.last_100_steps = trained_s, update.env_steps
        if update.env_steps >= next_evaluation and measured.greedy_s is None:
            next_evaluation += EVALUATION_EVERY
            mean = evaluation.play(greedy(peer, environment), environment, EPISODES, FIRST_SEED).mean
            measured.greedy_curve.append((trained_s, update.env_steps, mean))
            if mean >= TARGET:
                measured.greedy_s, measured.greedy_steps = trained_s, update.env_steps
        if (measured.greedy_s and measured.last_100_s) or update.env_steps >= MAX_STEPS:
            break
        begun = time.perf_counter()
    peer.close()
    return measured


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    sys.stdout.write(json.dumps(asdict(measure(sys.argv[1], int(sys.argv[2])))) + "\n")
