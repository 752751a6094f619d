"""Requests of episodes that a promotion overtakes."""

import asyncio
import json
from typing import Any

import pytest

from serving.arguments import Arguments
from serving.http.policy_app import PolicyApp
from serving.replica.auth import BearerToken
from tests.serving.asking import Answer, ask, post, served
from tests.serving.policies import CONTRARY_BUNDLE, COUNTING_BUNDLE, STEERING_BUNDLE

TILTED = b'{"observation": [0, 0, 1, 0]}'
TENSORS = b'{"inputs": [{"name": "observations", "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 1, 0]}]}'


@pytest.fixture
def promoted() -> PolicyApp:
    """An application whose version 3 was replaced by version 4, which takes the other action."""
    app = PolicyApp(served())
    app.served = served(CONTRARY_BUNDLE, version=4)
    return app


def pinned(app: PolicyApp, pin: object, body: bytes = TILTED, **options: Any) -> Answer:
    return ask(app, body=body, headers={"X-Pin-Version": str(pin), "Content-Type": "application/json"}, **options)


def labels(answer: Answer) -> tuple[str, str | None]:
    return answer.headers["x-model-version"], answer.headers.get("x-repinned")


@pytest.mark.parametrize(
    ("path", "body", "action"),
    [
        ("/", TILTED, b'"action":%d'),
        ("/invocations", b'{"inputs": [[0, 0, 1, 0]]}', b'"action":[%d]'),
        ("/v2/models/cartpole-ppo/infer", TENSORS, b'"data":[%d]'),
        ("/v2/models/cartpole-ppo/versions/3/infer", TENSORS, b'"data":[%d]'),
    ],
)
def test_a_pinned_version_answers_after_a_promotion(promoted: PolicyApp, path: str, body: bytes, action: bytes) -> None:
    answer = pinned(promoted, 3, body, path=path)
    assert (answer.status, labels(answer)) == (200, ("3", None))
    assert action % 1 in answer.body


def test_without_a_pin_or_with_the_current_one_the_current_version_answers(promoted: PolicyApp) -> None:
    for answer in (ask(promoted, body=TILTED), pinned(promoted, 4)):
        assert (labels(answer), answer.json()) == (("4", None), {"action": 0})


@pytest.mark.parametrize("version", [2, 5, 10**17])
def test_an_unknown_pin_is_answered_by_the_current_version_and_says_so(promoted: PolicyApp, version: int) -> None:
    answer = pinned(promoted, version)
    assert (labels(answer), answer.json()) == (("4", "true"), {"action": 0})


def test_an_error_and_a_description_say_so_too(promoted: PolicyApp) -> None:
    assert labels(pinned(promoted, 2, b"hello")) == ("4", "true")
    assert labels(pinned(promoted, 2, b"", method="GET", path="/docs")) == ("4", "true")


def test_an_error_of_a_pinned_version_carries_its_labels(promoted: PolicyApp) -> None:
    answer = pinned(promoted, 3, b'{"observation": [0, 0]}')
    assert (answer.status, answer.json()["error"]["code"], labels(answer)) == (422, "observation_shape", ("3", None))


def test_a_malformed_pin_is_rejected(promoted: PolicyApp) -> None:
    answer = pinned(promoted, "v3")
    assert (answer.status, labels(answer)) == (422, ("4", None))
    message = 'X-Pin-Version is "v3", expected the X-Model-Version of the episode\'s last answer'
    assert answer.json() == {"error": {"code": "pin_invalid", "message": message}}


def test_a_pin_is_read_after_the_token() -> None:
    app = PolicyApp(served(), token=BearerToken("secret"))
    assert pinned(app, "v3").status == 401


def test_without_a_grace_a_replaced_version_is_gone_at_once() -> None:
    app = PolicyApp(served(), Arguments(pin_grace_s=0))
    app.served = served(CONTRARY_BUNDLE, version=4)
    assert labels(pinned(app, 3)) == ("4", "true")


def test_new_tags_of_the_served_version_replace_no_version(promoted: PolicyApp) -> None:
    for _ in range(3):
        promoted.served = served(CONTRARY_BUNDLE, version=4)
    assert labels(pinned(promoted, 3)) == ("3", None)


def test_the_versions_of_the_last_two_promotions_answer(promoted: PolicyApp) -> None:
    promoted.served = served(version=5)
    assert [labels(pinned(promoted, version)) for version in (3, 4, 5)] == [("3", None), ("4", None), ("5", None)]
    promoted.served = served(version=6)
    assert [labels(pinned(promoted, version)) for version in (3, 4)] == [("6", "true"), ("4", None)]


def test_a_rollback_to_a_held_version_withdraws_the_other_at_once(promoted: PolicyApp) -> None:
    promoted.served = served(version=3)
    assert promoted._pinned.numbers == ()
    assert [labels(pinned(promoted, version)) for version in (3, 4)] == [("3", None), ("3", "true")]
    promoted.served = served(CONTRARY_BUNDLE, version=4)
    assert [labels(pinned(promoted, version)) for version in (3, 4)] == [("3", None), ("4", None)]


def test_a_version_with_other_spaces_answers_in_its_own(promoted: PolicyApp) -> None:
    promoted.served = served(STEERING_BUNDLE, version=5)
    assert pinned(promoted, 4).json() == {"action": 0}
    assert pinned(promoted, 5, b'{"observation": [0]}').json() == {"action": [0.0]}
    model = pinned(promoted, 4, b"", method="GET", path="/model").json()
    assert (model["version"], model["action_space"]["type"]) == (4, "Discrete")


def test_a_recurrent_episode_keeps_its_state_with_its_version() -> None:
    app = PolicyApp(served(COUNTING_BUNDLE))
    state = ask(app, body=b'{"observation": [5]}').json()["state"]
    app.served = served(COUNTING_BUNDLE, version=4)
    body = json.dumps({"observation": [-1], "state": state}).encode()
    assert (pinned(app, 3, body).json()["action"], pinned(app, 4, body).json()["action"]) == (1, 0)


def test_a_promotion_in_the_middle_of_a_hundred_episodes_changes_the_version_of_none() -> None:
    app = PolicyApp(served())
    episodes: list[list[tuple[int, bytes, bytes | None]]] = [[] for _ in range(100)]

    async def play(number: int) -> None:
        pin: tuple[tuple[bytes, bytes], ...] = ()
        for _ in range(10):
            if sum(map(len, episodes)) >= 300 and app.served.version.version == 3:
                app.served = served(CONTRARY_BUNDLE, version=4)
            status, headers, body = await post(app, TILTED, more=pin)
            pin = ((b"x-pin-version", headers[b"x-model-version"]),)
            action = json.loads(body)["action"] if status == 200 else -1
            episodes[number].append((action, headers[b"x-model-version"], headers.get(b"x-repinned")))
            await asyncio.sleep(0)

    async def play_all() -> None:  # two thirds begin before the promotion
        await asyncio.gather(*map(play, range(66)))
        await asyncio.gather(*map(play, range(66, 100)))

    asyncio.run(play_all())
    assert [set(answers) for answers in episodes] == [{(1, b"3", None)}] * 66 + [{(0, b"4", None)}] * 34
