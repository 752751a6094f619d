"""Numbers that overflow or are not finite, in every form that a request can have: accepted or rejected, never a 500."""

import base64
import itertools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from serving.http.policy_app import PolicyApp
from serving.policy.bundle import Bundle
from serving.protocols.open_inference.datatypes import DATATYPES, DTYPES
from tests.serving.asking import ask, served
from tests.serving.policies import Tensor, model, policy_json

FILLERS = ("0", "NaN", "Infinity", "1e308", str(10**308), str(10**400))
"""The first elements of an observation."""
NUMBERS = (*FILLERS, "-1", "1.5", "1e39", "1e400", str(2**63), str(2**64), "9" * 4400, "true", "null", '"1e400"', "[]")
"""Its last element."""
INFER, INVOCATIONS = "/v2/models/cartpole-ppo/infer", "/invocations"
JSON, CSV = {"content-type": "application/json"}, {"content-type": "text/csv"}

LENGTH = 3
SPACES = {name: spaces.Box(0, 9, (LENGTH,), np.dtype(name).type) for name in ("float64", "float32", "float16", "int64")}

Sent = tuple[str, bytes, dict[str, str]]


def bundle(space: Any) -> Bundle:
    """A policy that computes a finite action for every observation: whether a number of it is positive."""
    graph = model(
        [
            "numbers = Cast <to = 1> (observations)",
            "positive = Greater(numbers, zero)",
            "integers = Cast <to = 7> (positive)",
            "action = ReduceMax <keepdims = 0> (integers, last)",
        ],
        [Tensor("observations", space.shape, space.dtype)],
        [Tensor("action", (), np.int64)],
        zero=np.float32(0),
        last=np.array([1]),
    )
    return Bundle(graph, policy_json(space, spaces.Discrete(2)))


def in_text(filler: str, number: str) -> Iterator[Sent]:
    """Requests with an observation of these numbers, written as text."""
    numbers = [*[filler] * (LENGTH - 1), number]
    one = f"[{','.join(numbers)}]"
    yield "/", f'{{"observation": {one}}}'.encode(), {}
    yield "/", f'{{"observations": [{one}, {one}]}}'.encode(), {}
    for form in (
        f'{{"inputs": [{one}]}}',
        f'{{"instances": [{one}, {one}]}}',
        f'{{"dataframe_split": {{"data": [{one}, {one}]}}}}',
        f'{{"dataframe_records": [{{"a": {one}}}]}}',
    ):
        yield INVOCATIONS, form.encode(), JSON
    yield INVOCATIONS, f"a,b,c\n{','.join(numbers)}\n".replace('"', "").encode(), CSV
    for datatype in DTYPES:
        tensor = f'{{"name": "observations", "shape": [1, {LENGTH}], "datatype": "{datatype}", "data": {one}}}'
        yield INFER, f'{{"inputs": [{tensor}]}}'.encode(), {}


def in_bytes(array: Any) -> Iterator[Sent]:
    """Requests with an observation as bytes."""
    batch = np.stack([array, array])
    for key, each in (("observation", array), ("observations", batch)):
        content = base64.b64encode(each.tobytes()).decode()
        encoded = {"base64": content, "dtype": each.dtype.name, "shape": each.shape}
        yield "/", json.dumps({key: encoded}).encode(), {}
    tensor = {"name": "observations", "shape": batch.shape, "datatype": DATATYPES[batch.dtype.name]}
    header = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": batch.nbytes}}]}).encode()
    yield INFER, header + batch.tobytes(), {"inference-header-content-length": str(len(header))}


def extremes(dtype: str) -> list[Any]:
    """The numbers of a dtype that convert to another one with most difficulty."""
    if np.dtype(dtype).kind == "f":
        return [0, np.nan, np.inf, -np.inf, np.finfo(dtype).max]
    return [0, 1] if dtype == "bool" else [0, np.iinfo(dtype).min, np.iinfo(dtype).max]


@pytest.mark.parametrize("space", SPACES)
def test_every_number_is_accepted_or_rejected(space: str) -> None:
    app = PolicyApp(served(bundle(SPACES[space])))
    sent = list(itertools.chain.from_iterable(itertools.starmap(in_text, itertools.product(FILLERS, NUMBERS))))
    for dtype in DATATYPES:
        for filler, number in itertools.product(extremes(dtype), repeat=2):
            sent += in_bytes(np.array([*[filler] * (LENGTH - 1), number], dtype))
    answers = [(ask(app, "POST", path, body, headers=headers).status, path, body[:200]) for path, body, headers in sent]
    assert [answer for answer in answers if answer[0] not in {200, 400, 422}] == []
    assert {status for status, _, _ in answers} == {200, 400, 422}


def test_the_sum_of_integers_that_overflows_is_no_fault_of_the_observation() -> None:
    app = PolicyApp(served(bundle(SPACES["float64"])))
    answer = ask(app, body=f'{{"observation": [{10**308}, {10**308}, {10**308}]}}'.encode())
    assert (answer.status, answer.json()) == (200, {"action": 1})
    rejected = ask(app, body=f'{{"observation": [{10**308}, {10**308}, NaN]}}'.encode())
    assert rejected.json()["error"]["message"] == "observation[2] is NaN, expected a finite float64"
