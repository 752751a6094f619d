"""Measures the seconds of training until the deterministic policy reaches the return that the zoo publishes.

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
        reached_s: Seconds to the published return; None if the run ended before.
        reached_steps: Environment steps to it.
        within_error_s: Seconds to the published return less one standard error of the evaluation.
        within_error_steps: Environment steps to that.
        seconds: Seconds of the whole run.
        env_steps: Environment steps of the whole run.
        curve: Seconds, environment steps and mean return of each evaluation.
    """

    reached_s: float | None = None
    reached_steps: int | None = None
    within_error_s: float | None = None
    within_error_steps: int | None = None
    seconds: float = 0.0
    env_steps: int = 0
    curve: list[tuple[float, int, float]] = field(default_factory=list)

    def add(self, mean: float, zoo: Zoo) -> None:
        """Add the mean return of an evaluation of the policy as it is now."""
        self.curve.append((self.seconds, self.env_steps, mean))
        if self.within_error_s is None and mean >= zoo.within_error:
            self.within_error_s, self.within_error_steps = self.seconds, self.env_steps
        if self.reached_s is None and mean >= zoo.published:
            self.reached_s, self.reached_steps = self.seconds, self.env_steps


def measure(peer: Peer, zoo: Zoo, mean_return: Callable[[Peer], float]) -> Measured:
    """Train until an evaluation reaches the published return, or for the environment steps that the zoo trains for."""
    measured = Measured()
    measured.add(mean_return(peer), zoo)
    next_evaluation = zoo.evaluation_interval
    begun = time.perf_counter()
    for measured.env_steps in peer.updates():
        measured.seconds += time.perf_counter() - begun
        is_last = measured.env_steps >= zoo.max_steps
        if is_last or measured.env_steps >= next_evaluation:
            next_evaluation = (measured.env_steps // zoo.evaluation_interval + 1) * zoo.evaluation_interval
            measured.add(mean_return(peer), zoo)
        if is_last or measured.reached_s is not None:
            break
        begun = time.perf_counter()
    return measured


def _mean_return(peer: Peer) -> float:
    """Return the mean of raw returns of the deterministic policy, over the same 100 episodes in each evaluation."""
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
