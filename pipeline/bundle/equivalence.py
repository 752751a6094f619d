"""Compares the outputs of a graph with those of the policy in torch that it was exported from."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnxruntime
from gymnasium import Space
from numpy.typing import NDArray

from pipeline.bundle.errors import ExportDiffers
from pipeline.environments.nested_spaces import Batch
from pipeline.export.action_heads import Heads, choice_sizes, is_choice
from pipeline.export.exportable_policy import ExportablePolicy
from serving.policy.noise import Noise
from serving.policy.spaces import leaves
from serving.policy.tensors import ACTION, ACTION_DIST_INPUTS, NOISE, STATE_IN, STATE_OUT, VALUES

_RELATIVE_TOLERANCE = 1e-5

#: exp(-104) is 0 in float32.
_IMPOSSIBLE = 104.0

#: A choice whose logits are all below this is one of masked actions only.
_MASKED = -1e6

#: Replaces minus infinity and the lowest float32, which masks use.
_LOWEST = -1e30


def check_equal(policy: ExportablePolicy, graph: bytes, observations: Batch) -> None:
    """Compare a graph with a policy: greedy from the initial state, and with random noise and states.

    Args:
        policy: Restored from the checkpoint that will be registered.
        graph: The serialized graph that will be registered.
        observations: Observations from rollouts.

    Raises:
        ExportDiffers: If an output differs by more than its tolerance; see `compare`.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of each optional input
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    batch = len(next(iter(observations.values())))
    states = {
        f"{STATE_IN}{name}": generator.uniform(-1, 1, (batch, *shape)).astype(np.float32)
        for name, shape in policy.state.shapes.items()
    }
    noise = {NOISE: Noise(tuple(policy.heads.noise)).draw(batch, seed=0)}
    for feeds in (dict(observations), {**observations, **noise, **states}):
        expected = policy.run(feeds)
        outputs = dict(zip(policy.output_names, session.run(policy.output_names, feeds), strict=True))
        compare(policy.action_space, expected, outputs, feeds.get(NOISE))
        for name in policy.output_names:
            if name.startswith((STATE_OUT, VALUES)):
                tolerance = _RELATIVE_TOLERANCE * max(1.0, float(np.abs(expected[name]).max()))
                _require(name, np.abs(outputs[name] - expected[name]), tolerance)


def compare(action_space: Space[Any], expected: Batch, found: Batch, noise: NDArray[Any] | None = None) -> None:
    """Compare the outputs of two policies for the same inputs.

    The tolerances are:

    - inputs of the distribution: 1e-5 of their largest absolute value, or 1e-5 if that is less than 1. Logits whose
      probability is 0 in float32, as those of masked actions, do not count for it; theirs is 1e-5 of their own size,
      and minus infinity equals anything below -1e30;
    - choices: none; they may differ only if the two largest logits (plus noise) are within twice that tolerance;
    - continuous actions: 1e-5 of the width of their range, or of their own size if that is larger, times the largest
      absolute noise if they are sampled.

    Args:
        action_space: The environment's.
        expected: `action`, leaf by leaf, and `action_dist_inputs`, by name.
        found: As `expected`.
        noise: The noise that both were sampled with, `[batch, noise_size]`; None if they are greedy.

    Raises:
        ExportDiffers: If an output differs by more than its tolerance.
    """
    heads = Heads(action_space)
    dist_inputs, found_inputs = (np.maximum(each[ACTION_DIST_INPUTS], _LOWEST) for each in (expected, found))
    is_possible = _possible(action_space, dist_inputs)
    scale = max(1.0, float(np.abs(dist_inputs[is_possible]).max(initial=0.0)))
    tolerance = _RELATIVE_TOLERANCE * scale
    differences = np.abs(found_inputs - dist_inputs)
    _require("distribution inputs", differences[is_possible], tolerance)
    own_scale = np.maximum(scale, np.abs(dist_inputs[~is_possible]))
    _require("masked logits", differences[~is_possible] / own_scale, _RELATIVE_TOLERANCE)
    if noise is None:
        noise = np.zeros((1, heads.noise_size), np.float32)
    inputs = np.split(dist_inputs, np.cumsum(heads.input_sizes)[:-1], axis=-1)
    noises = np.split(noise, np.cumsum([each.size for each in heads.noise])[:-1], axis=-1)
    for leaf, leaf_inputs, leaf_noise in zip(leaves(action_space), inputs, noises, strict=True):
        name = leaf.tensor(ACTION)
        if is_choice(leaf.space):
            clear = _clear(leaf_inputs + leaf_noise, choice_sizes(leaf.space), 2 * tolerance)
            differs = (found[name] != expected[name]).reshape(clear.shape)
            _require(f"{name}s", differs[clear].astype(float), 0.0)
        else:
            _require(f"{name}s", *_continuous(leaf.space, expected[name], found[name], scale, leaf_noise))


def _possible(action_space: Space[Any], dist_inputs: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which inputs of a distribution matter: all but the logits of choices whose probability is 0 in float32.

    Where a mask allows no choice at all, none of its logits matters.

    Args:
        action_space: The environment's.
        dist_inputs: `[batch, inputs]`.

    Returns:
        `[batch, inputs]`.
    """
    matter = []
    for inputs, is_logits in _parts(action_space, dist_inputs):
        largest = inputs.max(axis=-1, keepdims=True) if is_logits else 0.0
        # A comparison with NaN is false, so NaN matters and is not within any tolerance.
        is_impossible = (inputs < largest - _IMPOSSIBLE) | (largest < _MASKED)
        matter.append(~(is_impossible & is_logits))
    return np.concatenate(matter, axis=-1)


def allows_action(action_space: Space[Any], dist_inputs: NDArray[Any]) -> NDArray[np.bool_]:
    """Return `[batch]`: whether there is a choice that is not masked, for each number of the action."""
    choices = [inputs for inputs, is_logits in _parts(action_space, dist_inputs) if is_logits]
    allowed = np.ones(len(dist_inputs), np.bool_)
    for logits in choices:
        allowed &= ~(logits.max(axis=-1) < _MASKED)
    return allowed


def _parts(action_space: Space[Any], dist_inputs: NDArray[Any]) -> Iterator[tuple[NDArray[Any], bool]]:
    """Yield the logits of each choice with True, and the inputs of each other leaf with False; `[batch, ...]`."""
    split = np.split(dist_inputs, np.cumsum(Heads(action_space).input_sizes)[:-1], axis=-1)
    for leaf, inputs in zip(leaves(action_space), split, strict=True):
        if is_choice(leaf.space):
            yield from ((each, True) for each in np.split(inputs, np.cumsum(choice_sizes(leaf.space))[:-1], axis=-1))
        else:
            yield inputs, False


def _clear(logits: NDArray[Any], sizes: Sequence[int], margin: float) -> NDArray[np.bool_]:
    """Return `[batch, choices]`: whether the largest logit of each choice exceeds the others by the margin."""
    clear = []
    for part in np.split(logits, np.cumsum(sizes)[:-1], axis=-1):
        best_two = np.sort(part, axis=-1)[:, -2:]
        clear.append(best_two[:, -1] - best_two[:, 0] > margin if len(best_two[0]) > 1 else np.ones(len(part), bool))
    return np.stack(clear, axis=-1)


def _continuous(
    space: Any, expected: NDArray[Any], found: NDArray[Any], scale: float, noise: NDArray[Any]
) -> tuple[NDArray[Any], float]:
    """Return the differences as fractions of the range, and their tolerance."""
    bounded = space.bounded_below & space.bounded_above
    width = np.where(bounded, np.where(bounded, space.high, 1.0) - np.where(bounded, space.low, 0.0), 1.0)
    differences = np.abs(found.astype(np.float64) - expected) / np.maximum(width, np.finfo(np.float32).tiny)
    size = max(1.0, float(np.abs(noise).max())) * (1.0 if bounded.all() and not noise.any() else scale)
    largest = np.abs(np.where(bounded, 1.0, expected)).max(initial=1.0)
    return differences, _RELATIVE_TOLERANCE * max(size, float(largest))


def _require(quantity: str, differences: NDArray[Any], tolerance: float) -> None:
    worst = float(differences.max(initial=0.0))
    if not worst <= tolerance:
        raise ExportDiffers(quantity, worst, tolerance)
