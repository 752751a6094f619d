"""Measures how long two policies take for the same recorded observations, on this machine."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.experiment.shadow.computation import inputs_of
from serving.policy.errors import PolicyFailed
from serving.policy.policy import Policy
from serving.policy.tensors import Tensors

SERVED_BATCH = 16
"""The largest batch that a replica computes for several requests together, by default (`max_batch_size`)."""

_CALLS, _LEAST_CALLS = 300, 20
_SECONDS = 1.0
"""The calls of each policy with each batch size: fewer if they take longer than that."""


@dataclass(frozen=True)
class Latency:
    """The milliseconds that one call of ONNX Runtime takes for a batch.

    Attributes:
        batch: The number of observations.
        challenger: The median and the 99th percentile.
        champion: Those of the version that made most of the decisions; None if its bundle is gone.
    """

    batch: int
    challenger: tuple[float, float]
    champion: tuple[float, float] | None


def batch_sizes(largest_request: int) -> list[int]:
    """Return the sizes of the batches to measure: single observations, full batches, and the largest request."""
    return sorted({1, SERVED_BATCH, largest_request})


def measure(challenger: Policy, champion: Policy | None, inputs: Tensors, sizes: Sequence[int]) -> list[Latency]:
    """Call both policies in turns, so that what else the machine does affects both alike.

    Args:
        challenger: The challenger.
        champion: A version that is served, if its bundle is there.
        inputs: Recorded inputs of the champion, `[rows, ...]`, at least one. They are repeated for larger batches.
        sizes: The sizes of the batches.
    """
    return [_measured(challenger, champion, inputs, size) for size in sizes]


def _measured(challenger: Policy, champion: Policy | None, inputs: Tensors, size: int) -> Latency:
    policies = [challenger] if champion is None else [challenger, champion]
    rows = len(next(iter(inputs.values())))
    feeds = [inputs_of(policy, inputs) for policy in policies]
    durations: list[list[float]] = [[] for _ in policies]
    begun = time.perf_counter()
    for call in range(_CALLS):
        if call >= _LEAST_CALLS and time.perf_counter() - begun > _SECONDS * len(policies):
            break
        taken = np.arange(call * size, (call + 1) * size) % rows
        for policy, feed, found in zip(policies, feeds, durations, strict=True):
            batch = {name: tensor[taken] for name, tensor in feed.items()}
            before = time.perf_counter()
            with contextlib.suppress(PolicyFailed):  # the time until it fails counts as well
                policy.run(batch, policy.interface.required_outputs)
            found.append(1e3 * (time.perf_counter() - before))
    quantiles = [(float(np.quantile(each, 0.5)), float(np.quantile(each, 0.99))) for each in durations]
    return Latency(size, quantiles[0], quantiles[1] if champion is not None else None)
