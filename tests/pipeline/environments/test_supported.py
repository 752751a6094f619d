"""What cannot be trained or served is refused by name and reason."""

import pytest
from gymnasium import spaces

from pipeline.environments import supported
from pipeline.environments.errors import UnsupportedSpace
from tests.pipeline.zoo import BOX, SPACES

_TWO = spaces.Discrete(2)


@pytest.mark.parametrize(
    ("observations", "actions", "message"),
    [
        (*SPACES["Text"], "there is no network for text here"),
        (*SPACES["Sequence"], "its elements have no fixed length, a network's input has"),
        (*SPACES["Graph"], "there is no network for graphs here"),
        (spaces.OneOf([BOX, _TWO]), _TWO, "what its elements consist of changes, a network's input does not"),
        (*SPACES["DottedKey"], "it is Dict with the key 'a.b' (keys are strings without dots)"),
        (*SPACES["WideIntegers"], "an element is one of more than 1,024 integers, each an output of the network"),
        (BOX, spaces.Tuple([spaces.Text(3)]), "there is no network for text here"),
    ],
)
def test_a_space_is_refused_by_reason(observations, actions, message):
    with pytest.raises(UnsupportedSpace) as caught:
        supported.check(observations, actions)
    assert caught.value.reason == message


@pytest.mark.parametrize("actions", [spaces.Dict({"a": _TWO}), spaces.Tuple([_TWO])])
def test_recurrent_policies_take_no_nested_actions(actions):
    with pytest.raises(UnsupportedSpace, match="RLlib's LSTM policies take no Dict or Tuple actions"):
        supported.check_recurrent(actions)
