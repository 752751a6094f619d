import json
from typing import Any

import numpy as np
import pytest

from serving.errors import RequestError
from serving.policy.tensors import Rows
from serving.protocols.native.json_codec import JsonCodec
from tests.serving.asking import served

ONE_KEYS = "observation, state, explore, seed, details, episode, step, reward"
MANY_KEYS = "observations, states, explore, seed, details, episodes, steps, rewards"


@pytest.fixture
def codec() -> JsonCodec:
    return served().prepared(JsonCodec)


def test_one_observation_gets_one_action(codec: JsonCodec) -> None:
    decoded = codec.decode(b'{"observation": [1, 2, 3, 4]}')
    assert isinstance(decoded.observations, np.ndarray)
    assert decoded.observations.shape == (1, 4)
    assert codec.encode(np.array([1]), batched=decoded.batched) == b'{"action":1}'


def test_a_list_of_observations_gets_a_list_of_actions(codec: JsonCodec) -> None:
    decoded = codec.decode(b'{"observations": [[1, 2, 3, 4], [5, 6, 7, 8]]}')
    assert isinstance(decoded.observations, np.ndarray)
    assert decoded.observations.shape == (2, 4)
    assert codec.encode(np.array([1, 0]), batched=decoded.batched) == b'{"actions":[1,0]}'


BAD: list[tuple[Any, str]] = [
    (b"", 'the body is not JSON: it is empty; send {"observation": [...]}'),
    (
        b"hello",
        (
            "the body is not JSON: unexpected character, expected a JSON value: line 1 column 1 (char 0); "
            'send {"observation": [...]}'
        ),
    ),
    (b"[" * 3000, 'the body is not JSON: it is nested too deeply; send {"observation": [...]}'),
    (b"[1, 2, 3, 4]", 'the body is a list, expected an object like {"observation": [...]}'),
    (b"null", 'the body is null, expected an object like {"observation": [...]}'),
    (b'"x"', 'the body is the string "x", expected an object like {"observation": [...]}'),
    (b"{}", 'the request has no key, expected "observation" (one) or "observations" (a list of them)'),
    (b'{"obs": []}', 'the request has "obs", expected "observation" (one) or "observations" (a list of them)'),
    (
        b'{"observation": [], "observations": []}',
        'the request has both "observation" and "observations", expected one of them',
    ),
    (
        b'{"observation": [1,2,3,4], "action": 1}',
        f'the request has an unknown key "action", expected only {ONE_KEYS}',
    ),
    (
        b'{"observations": [], "state": null}',
        f'the request has an unknown key "state", expected only {MANY_KEYS}',
    ),
    (b'{"observation": [1,2,3,4], "explore": 1}', '"explore" is 1, expected true or false'),
    (b'{"observation": [1,2,3,4], "details": "yes"}', '"details" is the string "yes", expected true or false'),
    (b'{"observation": [1,2,3,4], "seed": -1}', '"seed" is -1, expected an integer from 0 to 2**64 - 1'),
    (b'{"observation": [1,2,3,4], "seed": true}', '"seed" is true, expected an integer from 0 to 2**64 - 1'),
    (
        b'{"observation": [1,2,3,4], "explore": true}',
        'this version computes greedy actions only, because its graph has no noise input; leave "explore" out',
    ),
    (
        b'{"observations": [[1,2,3,4]], "states": [null, null]}',
        '"states" is a list of 2, expected a list of one state per observation, 1',
    ),
    (
        b'{"observations": [[1,2,3,4]], "states": "x"}',
        '"states" is the string "x", expected a list of one state per observation, 1',
    ),
    (
        b'{"observation": [1,2,3,4], "state": "x"}',
        ("state is not base64; send the state of the last response, or leave it out to begin with the initial state"),
    ),
    (b'{"observation": [1, 2, 3], "details": true}', "observation has shape (3,), expected (4,) float32"),
    (b'{"observation": [NaN, 2, 3, 4]}', "observation[0] is NaN, expected a finite float32"),
    (b'{"observation": [1, Infinity, 3, 4]}', "observation[1] is Infinity, expected a finite float32"),
    (b'{"observation": [1, 1e999, 3, 4]}', "observation[1] is Infinity, expected a finite float32"),
    (b'{"observations": [[1, 2, 3]]}', "observations[0] has shape (3,), expected (4,) float32"),
]


@pytest.mark.parametrize(("body", "message"), BAD, ids=[str(body[:30]) for body, _ in BAD])
def test_a_bad_body_raises_its_exact_error(codec: JsonCodec, body: bytes, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        codec.decode(body)
    assert str(caught.value) == message


def test_options_with_their_default_values_change_nothing(codec: JsonCodec) -> None:
    body = b'{"observation": [1, 2, 3, 4], "explore": false, "details": false, "seed": 3, "state": null}'
    decoded = codec.decode(body)
    assert isinstance(decoded.observations, Rows)
    assert list(decoded.observations.tensors) == ["observations"]
    assert not decoded.observations.details.any()


def test_numbers_without_a_json_form_are_null_in_details(codec: JsonCodec) -> None:
    rows = Rows(
        {"action": np.array([1]), "action_dist_inputs": np.array([[-np.inf, 0.5]]), "values": np.array([2.5])},
        details=np.array([True]),
        reset=np.array([False]),
    )
    assert json.loads(codec.encode(rows, batched=False)) == {
        "action": 1,
        "details": {"action_dist_inputs": [None, 0.5], "value": 2.5},
    }
