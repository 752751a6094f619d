"""Finds numbers that are not finite in the outputs of a graph.

A diverged policy computes NaN. The largest of NaN logits is still some action, so the logits are looked at as well.
"""

import math
from collections.abc import Sequence

import numpy as np
from gymnasium import Space
from numpy.typing import NDArray

from serving.policy.errors import OutputNotFinite
from serving.policy.spaces import leaves
from serving.policy.tensors import ACTION, ACTION_DIST_INPUTS, STATE_OUT


def checked_outputs(action_space: Space[object], outputs: Sequence[str]) -> tuple[str, ...]:
    """Return which of a graph's outputs can show that it diverged: float actions, states, and logits of the others."""
    actions = {leaf.tensor(ACTION): np.dtype(leaf.space.dtype).kind == "f" for leaf in leaves(action_space)}
    floats = [name for name, is_float in actions.items() if is_float]
    states = [name for name in outputs if name.startswith(STATE_OUT)]
    logits = [ACTION_DIST_INPUTS] if ACTION_DIST_INPUTS in outputs and len(floats) < len(actions) else []
    return *floats, *states, *logits


def check_finite(name: str, tensor: NDArray[np.floating]) -> None:
    """Raise OutputNotFinite if an output of the graph holds NaN or an infinity.

    Logits may be minus infinity, as those of masked actions are, but not all logits of a row.
    """
    if math.isfinite(np.vdot(tensor, tensor)):  # a quick test, which large finite numbers do not pass
        return
    if name == ACTION_DIST_INPUTS:
        is_valid = not (np.isnan(tensor) | (tensor == np.inf)).any() and not (tensor == -np.inf).all(axis=-1).any()
    else:
        is_valid = bool(np.isfinite(tensor).all())
    if not is_valid:
        raise OutputNotFinite(name)
