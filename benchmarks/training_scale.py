"""Measures environment steps per second of training, by the number of remote environment runners.

`make bench-scale` prints a table. CartPole-v1 steps all environments in one vector, Acrobot-v1 one by one, and
a step of `benchmarks.slow:Slow-v0` takes as long as is asked for. It needs no network.
"""

import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from itertools import islice, product
from pathlib import Path
from typing import Any

import click

from serving.processes import available_cpus

SLOW = "benchmarks.slow:Slow-v0"
#: The default environments, with the milliseconds that a step takes where they are prescribed.
ENVIRONMENTS = ("CartPole-v1", "Acrobot-v1", f"{SLOW}=0.5", f"{SLOW}=2")
MOST_RUNNERS = 8
NUM_ENVS = 16
WARM_UP = 2
BATCH = 2048


@click.command()
@click.option(
    "--env", "environments", multiple=True, default=ENVIRONMENTS, help="Id, or ID=MS for milliseconds per step."
)
@click.option("--runners", multiple=True, type=int, help="Numbers of runners.  [default: 0 to the cores, at most 8]")
@click.option("--repeats", default=3, show_default=True, help="Interleaved measurements; the table shows medians.")
@click.option("--seconds", default=8.0, show_default=True, help="Seconds of each measurement.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="File for all measurements.")
@click.option("--one", nargs=2, type=(str, int), metavar="ENV NUMBER", help="Measure one number of runners once.")
def main(
    environments: tuple[str, ...],
    runners: tuple[int, ...],
    repeats: int,
    seconds: float,
    out: Path | None,
    one: tuple[str, int] | None,
) -> None:
    """Measure each number of runners in a new process, and print a table."""
    if one is not None:
        sys.stdout.write(json.dumps(steps_per_second(*one, seconds)))
        return
    numbers = runners or tuple(range(min(available_cpus(), MOST_RUNNERS) + 1))
    measured = defaultdict(list)
    for _, env, number in product(range(repeats), environments, numbers):
        command = [sys.executable, "-m", "benchmarks.training_scale", "--one", env, str(number)]
        command += ["--seconds", str(seconds)]
        output = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
        measured[env, number].append(float(output))
        sys.stderr.write(f"{env}, {number} runners: {float(output):,.0f} steps/s\n")
    if out is not None:
        records = [{"env": env, "runners": number, "steps_per_s": each} for (env, number), each in measured.items()]
        out.write_text(json.dumps({"cores": available_cpus(), "records": records}, indent=2))
    sys.stdout.write(f"{available_cpus()} cores; environment steps per second, sampling and learning\n\n")
    sys.stdout.write(_table(environments, numbers, measured))


def steps_per_second(env: str, num_env_runners: int, seconds: float) -> float:
    """Return the speed of training after a few warm-up iterations; 16 environments, however many processes."""
    from pipeline.config import TrainConfig
    from pipeline.environments import make
    from pipeline.rllib.ray_session import RaySession
    from pipeline.rllib.trainer import Trainer

    env_id, _, step_ms = env.partition("=")
    settings: dict[str, Any] = {"env_kwargs": json.dumps({"step_ms": float(step_ms)})} if step_ms else {}
    each = NUM_ENVS // max(1, num_env_runners)
    settings |= {"num_envs_per_env_runner": each, "train_batch_size_per_learner": BATCH}
    config = TrainConfig(env_id=env_id, num_env_runners=num_env_runners, **settings)
    with RaySession(address=None) as ray:
        ray.start(config)
        ray.wait_until_ready()
        with Trainer(config, make.of_config(config)) as trainer:
            iterations = trainer.iterations()
            list(islice(iterations, WARM_UP))
            steps, begun = 0, time.perf_counter()
            while time.perf_counter() - begun < seconds:
                steps += next(iterations).sampled
            return steps / (time.perf_counter() - begun)


def _table(
    environments: tuple[str, ...], numbers: tuple[int, ...], measured: dict[tuple[str, int], list[float]]
) -> str:
    lines = ["| environment runners | " + " | ".join(map(str, numbers)) + " |", "| --- |" + " --- |" * len(numbers)]
    for env in environments:
        env_id, _, step_ms = env.partition("=")
        name = f"a step takes {step_ms} ms" if step_ms else env_id
        medians = (statistics.median(measured[env, number]) for number in numbers)
        lines.append(f"| {name} | " + " | ".join(f"{each:,.0f}" for each in medians) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
