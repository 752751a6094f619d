"""Measures environment steps per second of training, by the number of remote environment runners.

`make bench-scale` prints a table. CartPole-v1 steps all environments in one vector, Acrobot-v1 one by one in Python.
"""

import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from itertools import islice, product

import click

from serving.processes import available_cpus

ENV_IDS = ("CartPole-v1", "Acrobot-v1")
NUM_ENV_RUNNERS = (0, 1, 2)
WARM_UP = 5
ITERATIONS = 30


@click.command()
@click.option("--repeats", default=3, show_default=True, help="Interleaved measurements; the table shows medians.")
@click.option("--one", nargs=2, type=(str, int), metavar="ENV_ID NUMBER", help="Measure one number of runners once.")
def main(repeats: int, one: tuple[str, int] | None) -> None:
    """Measure each number of runners in a new process, and print a table."""
    if one is not None:
        sys.stdout.write(json.dumps(steps_per_second(*one)))
        return
    measured = defaultdict(list)
    for _, env_id, number in product(range(repeats), ENV_IDS, NUM_ENV_RUNNERS):
        command = [sys.executable, "-m", "benchmarks.training_scale", "--one", env_id, str(number)]
        output = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
        measured[env_id, number].append(float(output))
    sys.stdout.write(f"{available_cpus()} cores; environment steps per second, sampling and learning\n\n")
    sys.stdout.write("| environment runners | " + " | ".join(map(str, NUM_ENV_RUNNERS)) + " |\n")
    sys.stdout.write("| --- |" + " --- |" * len(NUM_ENV_RUNNERS) + "\n")
    for env_id in ENV_IDS:
        medians = (statistics.median(measured[env_id, number]) for number in NUM_ENV_RUNNERS)
        sys.stdout.write(f"| {env_id} | " + " | ".join(f"{each:,.0f}" for each in medians) + " |\n")


def steps_per_second(env_id: str, num_env_runners: int) -> float:
    """Return the speed of training with the default settings, after a few warm-up iterations."""
    from pipeline.config import TrainConfig
    from pipeline.environments import make as environments
    from pipeline.rllib.ray_session import RaySession
    from pipeline.rllib.trainer import Trainer

    config = TrainConfig(env_id=env_id, num_env_runners=num_env_runners)
    with RaySession(address=None) as ray:
        ray.start(config)
        ray.wait_until_ready()
        with Trainer(config, environments.describe(env_id)) as trainer:
            iterations = trainer.iterations()
            list(islice(iterations, WARM_UP))
            begun = time.perf_counter()
            steps = sum(iteration.sampled for iteration in islice(iterations, ITERATIONS))
            return steps / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
