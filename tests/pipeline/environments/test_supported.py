"""Spaces that cannot be trained or served are rejected with the reason."""

import pytest
from gymnasium import spaces

from pipeline.environments import supported
from pipeline.environments.errors import UnsupportedSpace
from tests.pipeline.zoo import BOX, SPACES

_TWO = spaces.Discrete(2)


@pytest.mark.parametrize(
    ("observations", "actions", "message"),
    [
        (*SPACES["Text"], "there is no network for text"),
        (*SPACES["Sequence"], "its elements vary in length, and a network's input does not"),
        (*SPACES["Graph"], "there is no network for graphs"),
        (spaces.OneOf([BOX, _TWO]), _TWO, "its elements vary in structure, and a network's input does not"),
        (*SPACES["DottedKey"], "it is Dict with the key 'a.b' (keys must be strings without dots)"),
        (*SPACES["WideIntegers"], "an element has more than 1,024 integers, each of which is an output of the network"),
        (BOX, spaces.Tuple([spaces.Text(3)]), "there is no network for text"),
    ],
)
def test_an_unsupported_space_is_rejected_with_the_reason(observations, actions, message):
    with pytest.raises(UnsupportedSpace) as caught:
        supported.check(observations, actions)
    assert caught.value.reason == message


@pytest.mark.parametrize("actions", [spaces.Dict({"a": _TWO}), spaces.Tuple([_TWO])])
def test_recurrent_policies_reject_nested_actions(actions):
    with pytest.raises(UnsupportedSpace, match="RLlib's LSTM policies do not support Dict or Tuple actions"):
        supported.check_recurrent(actions)
