import base64
from typing import Any

import numpy as np
import pytest

from serving.policy.errors import StateInvalid
from serving.policy.state_tokens import StateCodec

SHAPES = {"h": (2,), "c": (1, 3)}
CODEC = StateCodec(SHAPES, "model/3", b"key")
AFTER = {
    "state_out.h": np.array([[1, 2], [3, np.pi]], np.float32),
    "state_out.c": np.arange(6, dtype=np.float32).reshape(2, 1, 3),
}


def test_a_written_state_is_read_back() -> None:
    tensors, reset = CODEC.read(CODEC.write(AFTER), ["one", "other"])
    assert reset.tolist() == [False, False]
    np.testing.assert_array_equal(tensors["state_in.h"], AFTER["state_out.h"])
    np.testing.assert_array_equal(tensors["state_in.c"], AFTER["state_out.c"])
    assert tensors["state_in.c"].dtype == np.float32


def test_without_a_token_the_row_begins_with_the_initial_state() -> None:
    tensors, reset = CODEC.read([None, CODEC.write(AFTER)[1]], ["one", "other"])
    assert tensors["state_in.h"].tolist() == [[0, 0], [3, float(np.float32(np.pi))]]
    assert reset.tolist() == [False, False]


def test_another_replica_of_the_version_reads_the_token() -> None:
    tensors, _ = StateCodec(SHAPES, "model/3", b"key").read(CODEC.write(AFTER)[:1], ["state"])
    assert tensors["state_in.h"].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    "other",
    [
        StateCodec(SHAPES, "model/4", b"key"),
        StateCodec(SHAPES, "model/3", b"another bundle"),
        StateCodec({"h": (7,)}, "model/4", b"other"),
        StateCodec({}, "model/4", b"other"),
    ],
)
def test_the_token_of_another_version_resets_the_state(other: StateCodec) -> None:
    tensors, reset = other.read([CODEC.write(AFTER)[0], None], ["one", "other"])
    assert reset.tolist() == [True, False]
    assert not any(tensor.any() for tensor in tensors.values())


def bits_flipped(position: int) -> str:
    content = bytearray(base64.b64decode(CODEC.write(AFTER)[0]))
    content[position] ^= 1
    return base64.b64encode(content).decode()


def shortened() -> str:
    return base64.b64encode(base64.b64decode(CODEC.write(AFTER)[0])[:-4]).decode()


def forged() -> str:
    return StateCodec(SHAPES, "model/3", b"key")._sign(CODEC._id + np.ones(5, "<f4").tobytes())[:-4] + "AAA="


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (7, "state is 7, expected a string"),
        ({}, "state is an object, expected a string"),
        ("", "state is cut off"),
        ("!", "state is not base64"),
        ("\ud800", "state is not base64"),
        (base64.b64encode(b"x" * 24).decode(), "state is cut off"),
        (CODEC.write(AFTER)[0][:-8], "state is cut off"),
        (shortened(), "state was not written by this server, or was changed"),
        (bits_flipped(8), "state was not written by this server, or was changed"),
        (bits_flipped(-1), "state was not written by this server, or was changed"),
        (forged(), "state was not written by this server, or was changed"),
    ],
    ids=repr,
)
def test_a_malformed_or_forged_token_is_rejected(state: Any, message: str) -> None:
    with pytest.raises(StateInvalid) as caught:
        CODEC.read([state], ["state"])
    assert str(caught.value) == (
        f"{message}; send the state of the last response, or leave it out to begin with the initial state"
    )


def test_the_error_names_the_index_of_a_malformed_token() -> None:
    with pytest.raises(StateInvalid, match=r"states\[1\] is cut off"):
        CODEC.read([None, ""], ["states[0]", "states[1]"])
