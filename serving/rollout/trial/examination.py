"""Runs a candidate on observations, in the child process of its trial: each answer must be finite and in time."""

import time
from collections.abc import Iterator

import numpy as np

from serving.policy.errors import PolicyFault
from serving.policy.guards.finite import check_finite
from serving.policy.policy import Policy
from serving.policy.tensors import NOISE, STATE_IN, STATE_OUT, Tensors
from serving.rollout.trial.observations import CORNERS, fitting, generated, number_of, slices

BATCH_S = 0.25
"""About the longest CPU time of one call. A batch that would take longer is served in parts, and tried in parts."""
BUDGET_S = 0.25
"""After that CPU time, no further observations are tried: a promotion must not take long."""
SEED = 0


def examine(policy: Policy, live: Tensors, max_batch_size: int, observation_s: float) -> str | None:
    """Return what is wrong with a policy, None if nothing was found.

    It computes actions for single observations and for batches, greedily and with noise, and from the states that it
    computed before.

    Args:
        policy: The policy, whose guard stops calls that take too long.
        live: Live observations; those of another space are left out.
        max_batch_size: The most observations in one call.
        observation_s: The CPU time that it may take for one observation.
    """
    try:
        slowest = _slowest_s(policy, observation_s)
        if slowest <= observation_s:
            slowest = max(slowest, _examine_all(policy, live, max_batch_size, observation_s, slowest))
    except PolicyFault as fault:
        return f"on an observation of its space, {fault.details}"
    if slowest > observation_s:
        return f"it takes {slowest:.1f} s of CPU for one observation, at most {observation_s:g} s fit"
    return None


def _slowest_s(policy: Policy, observation_s: float) -> float:
    """Return the longest CPU time of one of the corners of the space. Raises PolicyFault."""
    slowest = 0.0
    for row in range(CORNERS):
        if slowest <= observation_s:
            slowest = max(slowest, _call(policy, generated(policy.observation_space, row, 1)))
    return slowest


def _examine_all(policy: Policy, live: Tensors, max_batch_size: int, observation_s: float, slowest_s: float) -> float:
    """Return the longest CPU time of one observation. Raises PolicyFault."""
    size = max(1, min(max_batch_size, int(BATCH_S / max(slowest_s, 1e-9))))
    ends = time.process_time() + BUDGET_S
    slowest = 0.0
    for tensors in _observations(policy, fitting(policy.observation_space, live), size):
        duration = _call(policy, tensors)
        if len(next(iter(tensors.values()))) == 1:
            slowest = max(slowest, duration)
        if time.process_time() > ends or slowest > observation_s:
            break
    return slowest


def _observations(policy: Policy, live: Tensors, size: int) -> Iterator[Tensors]:
    """Yield the live observations one by one, all in batches, and the generated ones one by one."""
    space, count = policy.observation_space, number_of(policy.observation_space)
    yield from slices(live, 1)
    yield from slices(live, size)
    for start in range(0, count, size):
        yield generated(space, start, min(size, count - start))
    for row in range(CORNERS, count):
        yield generated(space, row, 1)


def _call(policy: Policy, tensors: Tensors) -> float:
    """Run the policy on observations, and return the CPU time of one call. Raises PolicyFault."""
    interface, count = policy.interface, len(next(iter(tensors.values())))
    states = {STATE_IN + name: np.zeros((count, *shape), np.float32) for name, shape in interface.state_shapes.items()}
    start = time.process_time()
    found = _checked(policy, {**tensors, **states})
    duration = time.process_time() - start
    noise = {} if interface.noise is None else {NOISE: interface.noise.draw(count, SEED)}
    if noise or states:
        states = {STATE_IN + name: found[STATE_OUT + name] for name in interface.state_shapes}
        _checked(policy, {**tensors, **states, **noise})
    return duration


def _checked(policy: Policy, tensors: Tensors) -> Tensors:
    names = tuple(dict.fromkeys((*policy.interface.required_outputs, *policy.checked)))
    found = policy.run(tensors, names)
    for name in policy.checked:
        check_finite(name, found[name])
    return found
