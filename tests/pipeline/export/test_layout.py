"""The audit of recorded decisions finds near ties by the layout of the heads' inputs and noise."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from pipeline.export.action_heads import Heads
from serving.experience.conversion.agreement import ActionComparison
from serving.policy.bundle import Interface
from serving.policy.noise import Noise
from serving.policy.spaces import leaves
from serving.policy.tensors import ACTION

SPACES = {
    "discrete": spaces.Discrete(3, start=4),
    "several": spaces.MultiDiscrete([2, 3], start=[1, -1]),
    "matrix": spaces.MultiDiscrete([[2, 3], [4, 2]]),
    "bits": spaces.MultiBinary([2, 2]),
    "integers": spaces.Box(-2, 2, (2,), np.int8),
    "nested": spaces.Dict(
        drive=spaces.Box(-1, 1, (2,)),
        flags=spaces.Tuple([spaces.MultiBinary(3), spaces.Discrete(4)]),
        mode=spaces.Discrete(3),
    ),
}


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_the_audit_knows_which_inputs_and_which_noise_decide_a_choice(space):
    heads = Heads(space)
    noise = torch.from_numpy(Noise(tuple(heads.noise)).draw(200, seed=1))
    inputs = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (200, sum(heads.input_sizes))).astype(np.float32))
    names = [leaf.tensor(ACTION) for leaf in leaves(space)]
    with torch.no_grad():
        computed = dict(zip(names, (action.numpy() for action in heads(inputs, noise)[0]), strict=True))
        greedy = dict(zip(names, (action.numpy() for action in heads(inputs, 0 * noise)[0]), strict=True))
    compare = ActionComparison(Interface(space, space, None, {}))
    swapped = inputs.numpy() + _noise_of_choices(heads, noise.numpy())
    choices = {leaf.tensor(ACTION) for leaf in leaves(space) if np.dtype(leaf.space.dtype).kind in "iub"}
    served = computed | {name: greedy[name] for name in choices}
    is_equal = [(served[name] == computed[name]).reshape(200, -1).all(axis=1) for name in choices]
    # Inputs of which the noise has no part: the greedy choices are those with the largest values.
    assert compare(served, computed, inputs.numpy(), 0 * noise.numpy()).same.all()
    assert (compare(served, computed, inputs.numpy(), noise.numpy()).same == np.logical_and.reduce(is_equal)).all()
    # Inputs to which the noise was added before: the sampled choices are.
    assert compare(computed, served, swapped, 0 * noise.numpy()).same.all()


def _noise_of_choices(heads: Heads, noise: np.ndarray) -> np.ndarray:
    """The noise of each input of the distribution: that of its choice, 0 for means and deviations."""
    parts, start = [], 0
    for part, size in zip(heads.noise, heads.input_sizes, strict=True):
        own = noise[:, start : start + part.size]
        parts.append(own if part.size == size else np.zeros((len(noise), size), np.float32))
        start += part.size
    return np.concatenate(parts, axis=1)
