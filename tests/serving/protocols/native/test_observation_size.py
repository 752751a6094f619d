import json
import logging
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from serving.arguments import Arguments
from serving.client.core import to_json
from serving.http.policy_app import PolicyApp
from serving.policy.bundle import Bundle
from serving.protocols.native.observation_size import ObservationSize
from tests.serving.asking import ask, served
from tests.serving.policies import ROBOT_BUNDLE, Tensor, model, policy_json

ATARI = spaces.Box(0, 255, (210, 160, 3), np.uint8)
IMAGE = spaces.Box(0, 255, (40, 30, 3), np.uint8)
NESTED = spaces.Dict(arm=spaces.Dict(left=spaces.Box(-7, 7, (3,), int), right=spaces.Box(-np.inf, np.inf, (2,), float)))
EXTREME = float(np.finfo(np.float64).min)


def image_bundle() -> Bundle:
    """A policy that takes action 0 for every image."""
    graph = model(
        [
            "floats = Cast <to = 1> (observations)",
            "rows = Flatten(floats)",
            "pixel = Slice(rows, zero, one, one)",
            "black = Mul(pixel, nothing)",
            "action = ArgMax <axis = 1, keepdims = 0> (black)",
        ],
        [Tensor("observations", IMAGE.shape, np.uint8)],
        [Tensor("action", (), np.int64)],
        zero=np.array([0]),
        one=np.array([1]),
        nothing=np.float32(0),
    )
    return Bundle(graph, policy_json(IMAGE))


@pytest.mark.parametrize(
    ("space", "largest"),
    [
        (ATARI, np.full((210, 160, 3), 255, np.uint8)),
        (spaces.Box(-np.inf, np.inf, (7,), np.float64), np.full(7, EXTREME)),
        (spaces.Box(-100, 7, (2, 3), np.int64), np.full((2, 3), -100)),
        (spaces.Discrete(5), np.array(4)),
        (NESTED, {"arm": {"left": np.full(3, -7), "right": np.full(2, EXTREME)}}),
    ],
)
def test_no_observation_is_larger_than_said(space: Any, largest: Any) -> None:
    size = ObservationSize.of(space)
    for said, max_listed in ((size.lists, 10**9), (size.base64, -1)):
        written = len(json.dumps({"observation": to_json(largest, max_listed), "details": True}))
        assert written <= said <= written + 50


@pytest.mark.parametrize(
    ("limit", "remedy"),
    [
        (600_000, "send fewer observations per request"),
        (
            256 << 10,
            (
                "send fewer observations per request, and arrays in base64: one observation takes up to 571664 bytes "
                "as lists, and 134498 in base64 or as a binary tensor"
            ),
        ),
        (100_000, "one observation takes 134498 bytes even in base64: serve with max_body_bytes=134498"),
    ],
)
def test_the_remedy_is_one_that_helps(limit: int, remedy: str) -> None:
    assert ObservationSize.of(ATARI).remedy(limit) == remedy


def test_a_replica_says_at_its_start_that_an_observation_may_not_fit(caplog: pytest.LogCaptureFixture) -> None:
    size = ObservationSize.of(IMAGE)
    with caplog.at_level(logging.WARNING):
        PolicyApp(served(image_bundle()), Arguments(max_body_bytes=size.lists))
        assert caplog.messages == []
        PolicyApp(served(image_bundle()), Arguments(max_body_bytes=9000))
    assert caplog.messages == [f"requests larger than max_body_bytes=9000 are rejected: {size.remedy(9000)}"]


def test_one_observation_that_is_too_large_as_lists_gets_the_remedy_and_fits_in_base64() -> None:
    app = PolicyApp(served(image_bundle()), Arguments(max_body_bytes=9000))
    image = np.full(IMAGE.shape, 255, np.uint8)
    refused = ask(app, body=json.dumps({"observation": image.tolist()}).encode())
    assert refused.status == 413
    message = f"the body is larger than 9000 bytes; {ObservationSize.of(IMAGE).remedy(9000)}"
    assert refused.json()["error"]["message"] == message
    assert ask(app, body=json.dumps({"observation": to_json(image)}).encode()).json() == {"action": 0}


def test_a_limit_that_the_remedy_names_is_enough() -> None:
    app = PolicyApp(served(image_bundle()), Arguments(max_body_bytes=ObservationSize.of(IMAGE).base64))
    image = np.full(IMAGE.shape, 255, np.uint8)
    assert ask(app, body=json.dumps({"observation": to_json(image)}).encode()).json() == {"action": 0}


def test_small_observations_are_small() -> None:
    app = PolicyApp(served(ROBOT_BUNDLE), Arguments(max_body_bytes=1000))
    assert ask(app, body=b" " * 1001).json()["error"]["message"].endswith("; send fewer observations per request")
