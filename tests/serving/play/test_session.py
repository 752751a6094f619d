import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from serving.play import session
from serving.play.errors import EnvironmentFailed
from serving.play.process import EnvironmentProcess
from serving.play.session import Session
from serving.policy.errors import PolicyFailed
from serving.policy.rows import Batch
from serving.replica.errors import Overloaded
from serving.replica.served_policy import ServedPolicy
from tests.serving.play.viewer import environments
from tests.serving.policies import CONTRARY_BUNDLE, COUNTING_BUNDLE, EXPLORING_BUNDLE, STEERING_BUNDLE, served

EXPLORING = served(EXPLORING_BUNDLE)


def act_for(policy: ServedPolicy) -> Callable[[Batch], Any]:
    async def act(rows: Batch) -> Batch:
        return policy.policy.act(rows)

    return act


def told(watched: Session, until: Callable[[str, Any], bool] = lambda *_: False) -> list[tuple[str, Any]]:
    """The events of a session, to its end or to the one that is asked for."""

    async def read() -> list[tuple[str, Any]]:
        found = []
        events = watched.events()
        async for event in events:
            name, data = event.decode().strip().split("\n")
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
            if until(*found[-1]):
                break
        await events.aclose()
        return found

    return asyncio.run(read())


def test_each_step_tells_what_was_seen_chosen_and_thought() -> None:
    events = told(Session(lambda: EXPLORING, act_for), lambda _, content: content.get("step") == 2)
    assert [name for name, _ in events] == ["session", "step", "step", "step"]
    described, step = events[0][1], events[-1][1]
    assert (described["name"], described["environment"], described["scene"]["kind"]) == (
        "cartpole-ppo",
        "CartPole-v1",
        "cartpole",
    )
    assert (step["version"], step["return"], step["action"] in (0, 1)) == (3, 2.0, True)
    assert step["value"] == pytest.approx(sum(step["observation"]), abs=1e-5)
    probabilities = step["distribution"][0]["probabilities"]
    assert probabilities.index(max(probabilities)) == step["action"]
    assert step["latency_ms"] > 0


def test_a_promotion_acts_from_the_next_step_on() -> None:
    now = [EXPLORING]

    def promote_at_two(_: str, content: Any) -> bool:
        if content.get("step") == 2:
            now[0] = served(CONTRARY_BUNDLE, version=4)
        return bool(content.get("step") == 4)

    events = told(Session(lambda: now[0], act_for), promote_at_two)
    assert [content["version"] for name, content in events if name == "step"] == [3, 3, 3, 4, 4]


def test_a_recurrent_policy_keeps_its_state_within_an_episode_and_no_longer() -> None:
    counting = served(COUNTING_BUNDLE)
    events = told(Session(lambda: counting, act_for), lambda name, content: name == "episode" and content["seed"] % 2)
    assert [content["return"] for name, content in events if name == "episode"], "an episode has ended"
    assert all(content["return"] == 4 for name, content in events if name == "episode"), "only a memory earns it"


def test_a_promotion_to_another_environment_ends_the_session() -> None:
    now = [EXPLORING]

    def promote(_: str, content: Any) -> bool:
        if content.get("step") == 1:
            now[0] = served(STEERING_BUNDLE, version=4)
        return False

    assert told(Session(lambda: now[0], act_for), promote)[-1] == ("end", {"reason": "environment"})


def test_its_time_is_limited() -> None:
    assert told(Session(lambda: EXPLORING, act_for, length_s=0))[-1] == ("end", {"reason": "time"})


def test_it_stands_back_while_the_replica_refuses_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "BUSY_S", 0.01)
    refusals = iter([Overloaded(1), Overloaded(1)])

    def busy(policy: ServedPolicy) -> Callable[[Batch], Any]:
        async def act(rows: Batch) -> Batch:
            for refusal in refusals:
                raise refusal
            return policy.policy.act(rows)

        return act

    events = told(Session(lambda: EXPLORING, busy), lambda _, content: content.get("step") == 1)
    assert [content["step"] for name, content in events if name == "step"] == [0, 1]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PolicyFailed("secret"), "the policy failed to compute an action; the server's log says why"),
        (EnvironmentFailed("it is broken"), "the environment failed: it is broken"),
    ],
)
def test_what_fails_ends_it_with_a_reason(error: Exception, message: str) -> None:
    def failing(_: ServedPolicy) -> Callable[[Batch], Any]:
        async def act(_: Batch) -> Batch:
            raise error

        return act

    assert told(Session(lambda: EXPLORING, failing))[-1] == ("end", {"reason": "failed", "message": message})


def test_a_process_that_died_is_told_apart_for_another_may_live() -> None:
    def killing(policy: ServedPolicy) -> Callable[[Batch], Any]:
        for child in environments():
            child.kill()
        return act_for(policy)

    message = "the environment failed: its process ended"
    assert told(Session(lambda: EXPLORING, killing))[-1] == ("end", {"reason": "lost", "message": message})


def test_the_process_is_closed_when_the_viewer_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    close = EnvironmentProcess.close
    monkeypatch.setattr(EnvironmentProcess, "close", lambda self: (closed.append(self), close(self)))
    told(Session(lambda: EXPLORING, act_for), lambda name, _: name == "session")
    assert len(closed) == 1
