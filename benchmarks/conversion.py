"""`make bench-conversion`: what it costs to turn recorded decisions into Parquet, with the audit and without it.

One segment for each policy, with requests of one observation, sampled actions where the policy has noise. The seconds
are those of this process's CPU, so that other processes change them little.
"""

import tempfile
import time
from pathlib import Path

import click
import numpy as np
from gymnasium import spaces

from benchmarks.batching import linear
from serving.experience.conversion.audit import Auditor
from serving.experience.conversion.converter import Converter
from serving.experience.store import open_store
from serving.policy.bundle import Bundle
from tests.serving.experience.conversion.journals import Actor, episodes, put_into_cache, version_record, write_segment
from tests.serving.policies import COUNTING_BUNDLE, LOGP, ROBOT_BUNDLE, Tensor, model, policy_json

LAYERS = ["m0 = MatMul(observations, w0)", "h0 = Tanh(m0)", "m1 = MatMul(h0, w1)", "h1 = Tanh(m1)"]
GUMBEL, NORMAL = ([{"distribution": name, "size": 2}] for name in ("gumbel", "normal"))


def discrete() -> Bundle:
    """Return a policy for four numbers: two layers of 64, and two actions."""
    graph = model(
        [
            *LAYERS,
            "action_dist_inputs = MatMul(h1, w2)",
            "perturbed = Add(action_dist_inputs, noise)",
            "action = ArgMax <axis = 1, keepdims = 0> (perturbed)",
            LOGP,
        ],
        [Tensor("observations", (4,)), Tensor("noise", (2,))],
        [Tensor("action", dtype=np.int64), Tensor("action_dist_inputs", (2,)), Tensor("action_logp")],
        w0=linear(4, 64),
        w1=linear(64, 64),
        w2=linear(64, 2),
        last=np.array([1]),
    )
    return Bundle(graph, policy_json(spaces.Box(-10, 10, (4,)), noise=GUMBEL))


def continuous() -> Bundle:
    """Return a policy for 17 numbers: two layers of 64, and two Gaussian actions."""
    graph = model(
        [
            *LAYERS,
            "action_dist_inputs = MatMul(h1, w2)",
            "mean, log_std = Split <axis = 1, num_outputs = 2> (action_dist_inputs)",
            "deviation = Exp(log_std)",
            "scaled = Mul(deviation, noise)",
            "action = Add(mean, scaled)",
        ],
        [Tensor("observations", (17,)), Tensor("noise", (2,))],
        [Tensor("action", (2,)), Tensor("action_dist_inputs", (4,))],
        w0=linear(17, 64),
        w1=linear(64, 64),
        w2=linear(64, 4),
    )
    action_space = spaces.Box(-np.inf, np.inf, (2,))
    return Bundle(graph, policy_json(spaces.Box(-10, 10, (17,)), action_space, noise=NORMAL))


def images() -> Bundle:
    """Return a policy for four frames of 84 x 84 bytes: three convolutions (Mnih et al. 2015) and a layer of 512."""
    graph = model(
        [
            "bytes = Cast <to = 1> (observations)",
            "c0 = Transpose <perm = [0, 3, 1, 2]> (bytes)",
            "x0 = Conv <strides = [4, 4]> (c0, k0)",
            "c1 = Relu(x0)",
            "x1 = Conv <strides = [2, 2]> (c1, k1)",
            "c2 = Relu(x1)",
            "x2 = Conv(c2, k2)",
            "c3 = Relu(x2)",
            "flat = Flatten(c3)",
            "hidden = MatMul(flat, w0)",
            "action_dist_inputs = MatMul(hidden, w1)",
            "perturbed = Add(action_dist_inputs, noise)",
            "action = ArgMax <axis = 1, keepdims = 0> (perturbed)",
        ],
        [Tensor("observations", (84, 84, 4), np.uint8), Tensor("noise", (2,))],
        [Tensor("action", dtype=np.int64), Tensor("action_dist_inputs", (2,))],
        k0=linear(32, 4, 8, 8),
        k1=linear(64, 32, 4, 4),
        k2=linear(64, 64, 3, 3),
        w0=linear(7 * 7 * 64, 512),
        w1=linear(512, 2),
    )
    return Bundle(graph, policy_json(spaces.Box(0, 255, (84, 84, 4), np.uint8), noise=GUMBEL))


POLICIES = {
    "4 numbers, 2 actions": (discrete, 200_000),
    "17 numbers, 2 continuous actions": (continuous, 200_000),
    "recurrent, a state of 7 numbers": (lambda: COUNTING_BUNDLE, 200_000),
    "nested, 5 observations and 4 actions": (lambda: ROBOT_BUNDLE, 200_000),
    "84 x 84 x 4 bytes": (images, 2_000),
}


def records(actor: Actor, count: int) -> list[bytes]:
    """Return decisions of one observation each, sampled ones if the policy has noise."""
    inputs = actor.inputs(count, np.random.default_rng(0))
    seeds = range(count) if actor.policy.interface.noise else ()
    outputs = actor.act(inputs, row_seeds=seeds)
    payloads = [version_record(actor.spec)]
    for row in range(count):
        observed, acted = ({name: values[row : row + 1] for name, values in each.items()} for each in (inputs, outputs))
        names = episodes(1, f"e{row // 200}", row % 200)
        payloads.append(actor.record(observed, acted, names, row_seeds=seeds[row : row + 1]))
    return payloads


def measure(directory: Path, actor: Actor, payloads: list[bytes]) -> tuple[float, float, int, int]:
    """Return the CPU seconds with the audit and without it, and the bytes of the segment and of the tables."""
    put_into_cache(directory / "cache", actor.name, actor.number, actor.bundle)
    seconds, written, size = [], 0, 0
    for is_audited in (True, False, True):  # the first one loads the policy
        path = write_segment(directory, 1, payloads, size=sum(map(len, payloads)) + 100 * len(payloads) + 4096)
        size = path.stat().st_size
        converter = Converter(open_store(str(directory / "store")), Auditor(directory / "cache"))
        start = time.process_time()
        manifest = converter.convert(path, is_audited=is_audited)
        seconds.append(time.process_time() - start)
        assert manifest is not None  # noqa: S101 - this release has written it
        assert manifest.audit["unchecked" if not is_audited else "ok"] == len(payloads) - 1  # noqa: S101
        written = sum(file["bytes"] for file in manifest.files.values())
    return seconds[2], seconds[1], size, written


@click.command(help=__doc__)
def main() -> None:
    """Print a row for each policy."""
    click.echo("| observation and action | decisions | with the audit | without | journal | Parquet |")
    click.echo("| --- | --- | --- | --- | --- | --- |")
    for name, (bundle, count) in POLICIES.items():
        actor = Actor(bundle())
        with tempfile.TemporaryDirectory() as directory:
            audited, plain, journal, parquet = measure(Path(directory), actor, records(actor, count))
        rates = f"{count / audited:,.0f}/s | {count / plain:,.0f}/s"
        click.echo(f"| {name} | {count:,} | {rates} | {journal / count:,.0f} B | {parquet / count:,.0f} B |")


if __name__ == "__main__":
    main()
