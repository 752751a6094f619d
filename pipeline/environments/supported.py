"""Rejects, before training, spaces that PPO cannot be trained on or whose policy could not be served."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from pipeline.environments.action_adapters import choices, is_integer
from pipeline.environments.errors import UnsupportedSpace
from serving.policy.errors import SpaceUnsupported
from serving.policy.spaces import children, leaves

_LEAVES = "Box, Discrete, MultiDiscrete and MultiBinary, and Dict and Tuple of these"

_UNSUPPORTED = (
    (spaces.Sequence, "its elements vary in length, and a network's input does not"),
    (spaces.Text, "there is no network for text"),
    (spaces.Graph, "there is no network for graphs"),
    (spaces.OneOf, "its elements vary in structure, and a network's input does not"),
)

#: The largest number of integers that an element of a Box may have; each is an output of the network.
_MAX_CHOICES = 1024


def check(observation_space: Space[Any], action_space: Space[Any]) -> None:
    """Reject spaces that PPO cannot be trained on, or whose policy could not be served.

    Raises:
        UnsupportedSpace: If one is not supported; the error names the space and the reason.
    """
    for role, space in (("observation", observation_space), ("action", action_space)):
        try:
            for part in _parts(space):
                for kind, reason in _UNSUPPORTED:
                    if isinstance(part, kind):
                        raise UnsupportedSpace(role, _short(part), reason, _LEAVES)
            leaves(space)
        except SpaceUnsupported as error:
            raise UnsupportedSpace(role, _short(space), f"it is {error.space}", _LEAVES) from error
    _check_actions(action_space)


def check_recurrent(action_space: Space[Any]) -> None:
    """Reject action spaces that RLlib's recurrent policies do not support.

    Raises:
        UnsupportedSpace: If the space is a Dict or Tuple.
    """
    if isinstance(action_space, spaces.Dict | spaces.Tuple):
        reason = "RLlib's LSTM policies do not support Dict or Tuple actions"
        raise UnsupportedSpace("action", _short(action_space), reason, "a single leaf, or a policy without use_lstm")


def _check_actions(space: Space[Any]) -> None:
    for leaf in leaves(space):
        if not isinstance(leaf.space, spaces.Box):
            continue
        if leaf.space.dtype == np.bool_:
            raise UnsupportedSpace("action", _short(leaf.space), "it is a Box of bool", "MultiBinary")
        if is_integer(leaf.space) and (choices(leaf.space) > _MAX_CHOICES).any():
            reason = f"an element has more than {_MAX_CHOICES:,} integers, each of which is an output of the network"
            raise UnsupportedSpace("action", _short(leaf.space), reason, "a Box of floats, with a wrapper that rounds")


def _parts(space: Space[Any]) -> Iterator[Space[Any]]:
    """Yield a space and all spaces in it. Raises SpaceUnsupported."""
    yield space
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for _, child in children(space):
            yield from _parts(child)


def _short(space: Space[Any]) -> str:
    return " ".join(str(space).split())[:200]
