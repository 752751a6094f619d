"""Requests of MLflow's scoring protocol, and a function that sends them to an application in this process."""

import asyncio
import json
from typing import Any, NamedTuple

from serving.policy.bundle import Bundle
from tests.serving.asking import Answer
from tests.serving.policies import COUNTING_BUNDLE, EXPLORING_BUNDLE, ROBOT_BUNDLE, STEERING_BUNDLE

ONE = [0.1, 0.2, 0.3, 0.4]
ROBOT = {
    "observations.arm.grip": [-1, 1],
    "observations.arm.position": [[0.5, -0.25, 1], [0, 0, 0]],
    "observations.goal.0": [[[0, 1], [2, 255]], [[3, 4], [5, 6]]],
    "observations.goal.1": [[2, 1], [1, 2]],
    "observations.switches": [[1, 0], [0, 1]],
}
FIRST = {name: values[0] for name, values in ROBOT.items()}
FLAT = {**FIRST, "observations.goal.0": [0, 1, 2, 255]}
"""The first observation as a row of a table, whose cells are flat lists."""


def split(columns: list[Any] | None, *rows: Any, **more: Any) -> dict[str, Any]:
    return {"dataframe_split": {"data": list(rows), **({"columns": columns} if columns else {}), **more}}


def robot(**changes: Any) -> dict[str, Any]:
    return {"inputs": {**ROBOT, **{f"observations.{name.replace('_', '.')}": value for name, value in changes.items()}}}


BUNDLES: dict[str, Bundle] = {
    "exploring": EXPLORING_BUNDLE,
    "steering": STEERING_BUNDLE,
    "recurrent": COUNTING_BUNDLE,
    "robot": ROBOT_BUNDLE,
}

SAME: list[tuple[str, Any]] = [
    ("exploring", {"inputs": [ONE]}),
    ("exploring", {"inputs": [ONE, [0, 0, -1, 0]]}),
    ("exploring", {"instances": [ONE]}),
    ("exploring", {"inputs": [["1", "2.5", True, 4]]}),
    ("exploring", {"inputs": [ONE], "params": {"seed": 1}}),
    ("exploring", {"inputs": [ONE], "params": 5, "more": None}),
    ("exploring", {"inputs": ONE}),
    ("exploring", {"inputs": [ONE[:3]]}),
    ("exploring", {"inputs": [ONE, ONE[:3]]}),
    ("exploring", {"inputs": [["a", 2, 3, 4]]}),
    ("exploring", {"inputs": []}),
    ("exploring", {"inputs": [[]]}),
    ("exploring", {"inputs": None}),
    ("exploring", {"inputs": 5}),
    ("exploring", {"inputs": "abc"}),
    ("exploring", {"inputs": {"observations": [ONE]}}),
    ("exploring", {"instances": [{"observations": ONE}]}),
    ("exploring", {"inputs": [ONE], "instances": [ONE]}),
    ("exploring", {"inputs": [ONE], "prompt": "hello"}),
    ("exploring", {}),
    ("exploring", [ONE]),
    ("exploring", None),
    ("exploring", split(["a", "b", "c", "d"], ONE, [0, 0, -1, 0])),
    ("exploring", split(None, ONE)),
    ("exploring", split([0, 1, 2, 3], ONE, index=[7])),
    ("exploring", split(["a", "b", "c", "d"], ["1", 2, True, 4])),
    ("exploring", split(["flat"], [ONE], [ONE])),
    ("exploring", split(["flat"], [ONE[:3]])),
    ("exploring", split(["flat"], [[ONE]])),
    ("exploring", split(["a", "b", "c"], ONE)),
    ("exploring", split(["a", "b", "c", "d"])),
    ("exploring", split(["a", "b", "c", "d"], ["x", 2, 3, 4])),
    ("exploring", split(["a", "b", "c", "d"], [[1], [2], [3], [4]])),
    ("exploring", split(None, ONE, [5], more=1)),
    ("exploring", {"dataframe_split": [ONE]}),
    ("exploring", {"dataframe_split": {"data": 5}}),
    ("exploring", {"dataframe_split": {"columns": ["a", "b", "c", "d"]}}),
    ("exploring", {"dataframe_records": [dict(zip("abcd", ONE, strict=True)), dict(zip("dcba", ONE, strict=True))]}),
    ("exploring", {"dataframe_records": [{"flat": ONE}]}),
    ("exploring", {"dataframe_records": [ONE]}),
    ("exploring", {"dataframe_records": [dict(zip("abcde", [*ONE, 1], strict=True))]}),
    ("exploring", {"dataframe_records": []}),
    ("exploring", {"dataframe_records": {"a": ONE}}),
    ("exploring", {"dataframe_records": [{}]}),
    ("steering", {"inputs": [[0.5], [-0.5]]}),
    ("steering", {"inputs": [0.5]}),
    ("steering", split(["a"], [0.5], [-0.5])),
    ("steering", split(["a"], 0.5, -0.5)),
    ("steering", {"dataframe_records": [{"a": 0.5}]}),
    ("recurrent", {"inputs": [[0.5]]}),
    ("recurrent", {"inputs": {"observations": [[0.5]], "state_in.sum": [[1]]}}),
    ("recurrent", {"dataframe_records": [{"a": 0.5}]}),
    ("robot", {"inputs": ROBOT}),
    ("robot", {"inputs": {**ROBOT, "more": 5}}),
    ("robot", {"instances": ROBOT}),
    ("robot", {"instances": [FIRST, FIRST, FIRST]}),
    ("robot", robot(arm_grip=["1", 1.0])),
    ("robot", robot(arm_grip=[True, False])),
    ("robot", {"dataframe_records": [FLAT, FLAT]}),
    ("robot", {"dataframe_records": [{**FLAT, "more": 1, "observations.arm.grip": [1]}]}),
    ("robot", split(list(FLAT), list(FLAT.values()))),
    ("robot", {"inputs": {name: ROBOT[name] for name in list(ROBOT)[1:]}}),
    ("robot", {"inputs": [FIRST]}),
    ("robot", {"inputs": None}),
    ("robot", {"instances": [5]}),
    ("robot", {"instances": []}),
    ("robot", {"instances": [{}]}),
    ("robot", {"instances": {**ROBOT, "observations.arm.grip": [1]}}),
    ("robot", robot(arm_grip=5)),
    ("robot", robot(arm_position=[[1, 2], [1, 2]])),
    ("robot", robot(goal_0=[[[0, 1], [2, 300]]] * 2)),
    ("robot", {"dataframe_records": [FIRST]}),
    ("robot", split(None, list(FLAT.values()))),
    ("robot", {"dataframe_records": []}),
]
"""Bundle and request: both servers give equal predictions, or reject the request with the same status."""

STRICTER: list[tuple[str, Any, str]] = [
    ("exploring", {"inputs": [[None, 2, 3, 4]]}, "observations[0][0] is NaN, expected a finite float32"),
    ("exploring", {"inputs": [[float("nan"), 2, 3, 4]]}, "observations[0][0] is NaN, expected a finite float32"),
    ("exploring", {"inputs": [ONE, [1e300, 2, 3, 4]]}, "observations[1][0] is Infinity, expected a finite float32"),
    ("exploring", split(list("abcd"), ONE, ONE[:3]), "row 1 of dataframe_split.data has 3 cells, expected 4"),
    (
        "exploring",
        split(list("abcd"), ONE, index=[1, 2]),
        "dataframe_split.index is a list of 2, expected a list of 1, one label per row",
    ),
    (
        "exploring",
        {"dataframe_records": [dict(zip("abcd", ONE, strict=True)), {"a": 1}]},
        "observations[1][1] is NaN, expected a finite float32",
    ),
    ("robot", robot(arm_grip=[1, 9]), "observations[1].arm.grip: 9, expected an integer from -1 to 1"),
    ("robot", robot(arm_grip=[1, 0.7]), "observations[1].arm.grip: 0.7, expected an integer from -1 to 1"),
    ("robot", {"dataframe_records": [{**FLAT, "observations.arm.grip": 0.7}]}, "a number does not fit int64"),
    ("robot", robot(switches=[[1, 0]]), "the inputs hold different numbers of observations"),
]
"""Bundle, request and the reason why this server rejects it; MLflow computes actions for it."""

JSON = "application/json"
BODY = json.dumps({"inputs": [ONE]}).encode()


class Sent(NamedTuple):
    """A body with its content type, and the status with which MLflow and this server respond."""

    body: bytes
    content_type: str | None
    mlflow: int
    ours: int


CSV_BODY = b'first,"second",third,fourth\n0.1,0.2,0.3,0.4\n\n0,0,-1,0\n'

CONTENT_TYPES: list[Sent] = [
    Sent(BODY, JSON, 200, 200),
    Sent(BODY, "application/json; charset=UTF-8", 200, 200),
    Sent(BODY.decode().encode("utf-16"), JSON, 200, 200),
    Sent(BODY, "application/json; charset=latin-1", 415, 415),
    Sent(BODY, "application/json; profile=x", 415, 415),
    Sent(BODY, "application/json;", 415, 415),
    # The names of parameters are case-insensitive (RFC 9110, section 5.6.6), but not for MLflow.
    Sent(BODY, "application/json; Charset=utf-8", 415, 200),
    Sent(BODY, "Application/JSON", 415, 415),
    Sent(BODY, "text/plain", 415, 415),
    Sent(BODY, "", 415, 415),
    Sent(b"", JSON, 400, 400),
    Sent(b"{", JSON, 400, 400),
    Sent(b"\xff\xfe", JSON, 400, 400),
    Sent(b"", "text/csv", 400, 400),
    Sent(b"\xff", "text/csv", 400, 400),
    Sent(b"a,b\n1,2\n", "text/csv", 400, 400),
    Sent(b"a,b,c,d\n1,2,x,4\n", "text/csv; charset=utf-8", 400, 400),
    # MLflow reads no CSV for tensor signatures, and Parquet only for pandas signatures.
    Sent(CSV_BODY, "text/csv", 400, 200),
    Sent(b"", "application/vnd.apache.parquet", 400, 415),
]


def invoke(
    app: Any, body: bytes, content_type: str | None = JSON, path: str = "/invocations", method: str = "POST"
) -> Answer:
    """Send one request to an ASGI application, MLflow's or this server's."""
    headers = [] if content_type is None else [(b"content-type", content_type.encode())]
    scope = {"type": "http", "http_version": "1.1", "method": method, "path": path, "root_path": "", "headers": headers}
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app({**scope, "scheme": "http", "query_string": b""}, receive, send))
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(int(sent[0]["status"]), answered, b"".join(message.get("body", b"") for message in sent[1:]))
