"""The work of refusing a large malformed body, in calls of functions by Python code: none for each number in it."""

import base64
import gc
import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from gymnasium import spaces

from serving.http.policy_app import PolicyApp
from serving.policy.bundle import Bundle
from serving.replica.limits import MAX_BODY_BYTES
from tests.serving.asking import Answer, ask, served
from tests.serving.policies import CARTPOLE_BUNDLE, ROBOT_BUNDLE, ROBOT_OBSERVATION, Tensor, model, policy_json

COUNTER = model(["action = Identity(observations)"], [Tensor("observations", (), int)], [Tensor("action", (), int)])
COUNTER_BUNDLE = Bundle(COUNTER, policy_json(spaces.Discrete(5), spaces.Discrete(5)))
"""A policy whose observation and action are one integer from 0 to 4."""
WIDE_BUNDLE = Bundle(
    model(
        ["action = ArgMax <axis = 1, keepdims = 0> (observations)"],
        [Tensor("observations", (60_000,))],
        [Tensor("action", (), int)],
    ),
    policy_json(spaces.Box(-1, 1, (60_000,))),
)
BUNDLES = {"cartpole": CARTPOLE_BUNDLE, "counter": COUNTER_BUNDLE, "robot": ROBOT_BUNDLE, "wide": WIDE_BUNDLE}

INFER, INVOCATIONS = "/v2/models/cartpole-ppo/infer", "/invocations"


def filled(start: str, item: str, end: str, limit: int = MAX_BODY_BYTES) -> bytes:
    """Return a body with as many items as fit."""
    count = (limit - len(start) - len(end)) // (len(item) + 1)
    return (start + ",".join([item] * count) + end).encode()


def array(values: Any, dtype: Any) -> str:
    """Return an array's compact JSON form."""
    content = np.array(values, dtype)
    text = base64.b64encode(content.tobytes()).decode()
    return json.dumps({"base64": text, "dtype": content.dtype.name, "shape": list(content.shape)})


def tensor(datatype: str, shape: list[int], data: str) -> bytes:
    return b'{"inputs": [{"name": "observations", "datatype": "%s", "shape": %s, "data": [%s]}]}' % tuple(
        text.encode() for text in (datatype, json.dumps(shape), data)
    )


ROBOT = json.dumps(ROBOT_OBSERVATION, separators=(",", ":"))
BAD_ROBOT = ROBOT.replace("255", '"x"')


class Refused(NamedTuple):
    """A body that is refused, and the largest number of function calls that may take."""

    bundle: str
    path: str
    body: bytes
    status: int
    message: str
    media_type: str = "application/json"
    calls: int = 2_000


def columns(count: int) -> bytes:
    return b",".join(b'"%d":1' % number for number in range(count))


CSV_TYPE = "text/csv"
ONES = b"1," * 59_999

REFUSED = {
    "many numbers": Refused("counter", "/", filled('{"observations":[', "1", ',"x"]}'), 413, "the request holds 13"),
    "type": Refused("counter", "/", filled('{"observations":[', "1", ',"x"]}', 8_000), 422, 'is the string \\"x\\"'),
    "range": Refused("counter", "/", filled('{"observations":[', "1", ",9]}", 8_000), 422, "is 9, expected an integer"),
    "list for a number": Refused("counter", "/", filled('{"observation":[', "1", "]}"), 422, "has shape (13"),
    "lists for a number": Refused("counter", "/", filled('{"observation":[', "[]", "]}"), 422, "has shape (87"),
    "base64": Refused(
        *("counter", "/", b'{"observations": %s}' % array([1] * 190_000 + [9], np.uint8).encode()),
        *(422, "observations[190000] is 9, expected an integer from 0 to 4"),
    ),
    "flat": Refused("cartpole", "/", filled('{"observation":[', "1", "]}"), 422, "has shape (13"),
    "NaN": Refused("cartpole", "/", filled('{"observations":[', "[1,1,1,1]", ",[1,1,NaN,1]]}", 40_000), 422, "is NaN"),
    "wide, type": Refused("wide", "/", b'{"observation":[%s"x"]}' % ONES, 422, "observation[59999] is the string"),
    "wide, NaN": Refused("wide", "/", b'{"observation":[%sNaN]}' % ONES, 422, "observation[59999] is NaN"),
    "wide, ragged": Refused("wide", "/", b'{"observation":[%s[1]]}' % ONES, 422, "lists of different lengths"),
    "nested": Refused(
        *("robot", "/", filled('{"observations":[', ROBOT, f",{BAD_ROBOT}]}}"), 422, "goal.0[1][1]: the string"),
        calls=15 * len(filled("", ROBOT, "")) // len(ROBOT),
    ),
    "nested, key": Refused("robot", "/", b'{"observation": {"arm": {"grip": [%s1]}}}' % ONES, 422, "has no key"),
    "inputs, wide": Refused("wide", INVOCATIONS, b'{"inputs":[[%s"x"]]}' % ONES, 400, "[0][59999] is the string"),
    "inputs, many": Refused("counter", INVOCATIONS, filled('{"inputs":[', "1", ',"x"]}'), 413, "expected at most"),
    "inputs": Refused("counter", INVOCATIONS, filled('{"inputs":[', "1", ",9]}", 8_000), 400, "is 9, expected an in"),
    "inputs, shape": Refused("cartpole", INVOCATIONS, filled('{"inputs":[[', "1", "]]}"), 400, "has shape (13"),
    "split": Refused("cartpole", INVOCATIONS, filled('{"dataframe_split":{"data":[', "1", "]}}"), 413, "at most"),
    "records that share no column": Refused(
        *("cartpole", INVOCATIONS),
        b'{"dataframe_records":[%s]}' % b",".join(b'{"%d":1}' % number for number in range(4_000)),
        *(400, "the table has 4000 columns"),
        calls=10_000,
    ),
    "records that lack columns": Refused(
        *("wide", INVOCATIONS, b'{"dataframe_records":[{%s}%s]}' % (columns(20_000), b",{}" * 4_000)),
        *(400, "the table has 20000 columns"),
        calls=30_000,
    ),
    "CSV": Refused(
        *("cartpole", INVOCATIONS, b"a,b,c,d\n" + b"x,x,x,x\n" * 4_000, 400, "[0][0] is the string", CSV_TYPE),
        calls=25_000,
    ),
    "CSV, many": Refused("cartpole", INVOCATIONS, b"a\n" + b"x\n" * 99_000, 413, "expected at most", CSV_TYPE),
    "CSV, wide": Refused("cartpole", INVOCATIONS, b"a\n" + b"," * 262_000, 400, "has 262001 cells", CSV_TYPE),
    "infer": Refused("counter", INFER, tensor("UINT8", [90_000], "1," * 89_999 + "9"), 422, "[89999] is 9"),
    "infer, NaN": Refused("cartpole", INFER, tensor("FP32", [20_000, 4], "1," * 79_999 + "1e39"), 422, "[19999][3]"),
    "infer, outputs": Refused(
        *("cartpole", INFER),
        filled(tensor("FP32", [1, 4], "1,1,1,1").decode()[:-1] + ',"outputs":[', '{"name":"action"}', "]}", 18_000),
        *(400, "outputs is a list with a repeated name"),
        calls=9_000,
    ),
}


def calls(function: Callable[[], Answer]) -> tuple[int, Answer]:
    """Return the number of functions that are called, by Python's own code, and the result."""
    count = 0

    def profile(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    gc.collect()  # the garbage of other tests is not the work of a refusal
    gc.disable()
    sys.setprofile(profile)
    try:
        result = function()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count, result


@pytest.fixture(scope="module")
def apps() -> dict[str, PolicyApp]:
    return {name: PolicyApp(served(bundle)) for name, bundle in BUNDLES.items()}


@pytest.mark.parametrize("case", REFUSED)
def test_the_work_of_a_refusal_does_not_grow_with_the_body(apps: dict[str, PolicyApp], case: str) -> None:
    refused = REFUSED[case]
    assert len(refused.body) <= MAX_BODY_BYTES
    headers = {"content-type": refused.media_type}
    count, answer = calls(lambda: ask(apps[refused.bundle], "POST", refused.path, refused.body, headers=headers))
    assert (answer.status, refused.message in answer.body.decode()) == (refused.status, True), answer.body[:200]
    assert count <= refused.calls
