"""Measures the seconds of training until the policy reaches the return that the zoo publishes.

`python -m benchmarks.training.yardstick PEER ENV_ID SEED` prints one line of JSON.
"""

import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from benchmarks.training.peers import PEERS, Peer
from benchmarks.training.zoo import EPISODES, Zoo
from pipeline.evaluation import evaluation

FIRST_SEED = 1_000_000


@dataclass
class Measured:
    """The measurements of one run, in wall seconds of sampling and learning, without those of evaluations.

    Attributes:
        seconds: Seconds of the whole run.
        env_steps: Environment steps of the whole run.
        curve: Seconds, environment steps and mean return of each evaluation; the first is of the untrained policy.
    """

    seconds: float = 0.0
    env_steps: int = 0
    curve: list[tuple[float, int, float]] = field(default_factory=list)


def measure(peer: Peer, zoo: Zoo, mean_return: Callable[[Peer], float]) -> Measured:
    """Train until an evaluation reaches the published return, or until training ends by its settings."""
    measured = Measured(curve=[(0.0, 0, mean_return(peer))])
    next_evaluation = zoo.evaluation_interval
    begun = time.perf_counter()
    for measured.env_steps in peer.updates():
        measured.seconds += time.perf_counter() - begun
        is_last = measured.env_steps >= peer.max_steps
        if is_last or measured.env_steps >= next_evaluation:
            next_evaluation = (measured.env_steps // zoo.evaluation_interval + 1) * zoo.evaluation_interval
            mean = mean_return(peer)
            measured.curve.append((measured.seconds, measured.env_steps, mean))
            if is_last or mean >= zoo.published:
                break
        begun = time.perf_counter()
    return measured


def _mean_return(peer: Peer) -> float:
    """Return the mean of the raw returns of 100 episodes, which have the same seeds in each evaluation."""
    return evaluation.play(peer.player(), peer.environment, EPISODES, FIRST_SEED).mean


def main(name: str, env_id: str, seed: int) -> None:
    """Measure one run and print it."""
    zoo = Zoo.of(env_id)
    peer = PEERS[name](zoo, seed)
    measured = measure(peer, zoo, _mean_return)
    peer.close()
    sys.stdout.write(json.dumps(asdict(measured)) + "\n")


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
