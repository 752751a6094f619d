import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from serving.play import session
from serving.play.errors import EnvironmentFailed
from serving.play.process import EnvironmentProcess
from serving.play.session import Session
from serving.policy.bundle import Bundle
from serving.policy.errors import PolicyFailed
from serving.policy.tensors import Batch
from serving.replica.errors import Overloaded
from serving.replica.served_policy import ServedPolicy
from tests.serving.asking import served
from tests.serving.play.viewer import environments
from tests.serving.policies import CONTRARY_BUNDLE, COUNTING_BUNDLE, EXPLORING_BUNDLE, STEERING_BUNDLE
from tests.workshop import await_true

Act = Callable[[ServedPolicy, Batch], Batch]


def playing(
    bundle: Bundle, version: int = 3, act: Act = lambda served, batch: served.policy.act(batch)
) -> ServedPolicy:
    """Return a policy that is served without an application; `act` computes its actions, or raises."""
    served_policy = served(bundle, version=version)

    async def compute(batch: Batch) -> Batch:
        return act(served_policy, batch)

    served_policy.act = compute
    return served_policy


EXPLORING = playing(EXPLORING_BUNDLE)


def events_of(watched: Session, until: Callable[[str, Any], bool] = lambda *_: False) -> list[tuple[str, Any]]:
    """Return the events of a session up to its end, or up to the first for which `until` is true."""

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


def test_each_step_has_the_observation_action_value_and_distribution() -> None:
    events = events_of(Session(lambda: EXPLORING), lambda _, content: content.get("step") == 2)
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


def test_a_promoted_version_acts_in_the_next_step() -> None:
    now = [EXPLORING]

    def promote_at_two(_: str, content: Any) -> bool:
        if content.get("step") == 2:
            now[0] = playing(CONTRARY_BUNDLE, version=4)
        return bool(content.get("step") == 4)

    events = events_of(Session(lambda: now[0]), promote_at_two)
    assert [content["version"] for name, content in events if name == "step"] == [3, 3, 3, 4, 4]


def test_a_recurrent_policy_keeps_its_state_within_one_episode() -> None:
    counting = playing(COUNTING_BUNDLE)
    watched = Session(lambda: counting, environment_modules=["tests.serving"])
    events = events_of(watched, lambda name, content: name == "episode" and content["seed"] % 2)
    assert [content["return"] for name, content in events if name == "episode"], "an episode has ended"
    assert all(content["return"] == 4 for name, content in events if name == "episode"), (
        "only a policy with memory earns it"
    )


def test_an_environment_that_may_not_be_imported_is_replaced_by_random_observations() -> None:
    counting = playing(COUNTING_BUNDLE)
    watched = Session(lambda: counting, environment_modules=["tests.zoo"])
    events = events_of(watched, lambda _, content: bool(environments()) or content.get("step") == 2)
    described, *steps = [content for _, content in events]
    assert described["scene"] == {
        "kind": "numbers",
        "notice": "tests.serving.counting:Counting-v0 is not shown, because the server may not import "
        "tests.serving.counting. To allow it: --environment-modules tests.serving.counting. The numbers are random "
        "observations and the policy's answers.",
    }
    assert not environments(), "no process is started for it"
    assert [step["action"] in (0, 1) for step in steps] == [True, True, True]
    assert len({step["observation"][0] for step in steps}) == 3


def test_a_promotion_to_another_environment_ends_the_session() -> None:
    now = [EXPLORING]

    def promote(_: str, content: Any) -> bool:
        if content.get("step") == 1:
            now[0] = playing(STEERING_BUNDLE, version=4)
        return False

    assert events_of(Session(lambda: now[0]), promote)[-1] == ("end", {"reason": "environment"})


def test_the_duration_is_limited() -> None:
    assert events_of(Session(lambda: EXPLORING, length_s=0))[-1] == ("end", {"reason": "time"})


def test_an_overload_does_not_extend_the_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "OVERLOADED_S", 0.01)
    attempts: list[Batch] = []

    def busy(policy: ServedPolicy, batch: Batch) -> Batch:
        attempts.append(batch)
        if len(attempts) == 1:
            watched._ends_at = time.monotonic() + 0.2
            return policy.policy.act(batch)
        raise Overloaded(1) if len(attempts) < 100 else PolicyFailed("it retries for longer than its time")

    policy = playing(EXPLORING_BUNDLE, act=busy)
    watched = Session(lambda: policy)
    assert events_of(watched)[-1] == ("end", {"reason": "time"})


def test_an_environment_that_hangs_does_not_extend_the_duration() -> None:
    def hang(policy: ServedPolicy, batch: Batch) -> Batch:
        for child in environments():
            child.suspend()
        watched._ends_at = time.monotonic() + 0.2
        return policy.policy.act(batch)

    policy = playing(EXPLORING_BUNDLE, act=hang)
    watched = Session(lambda: policy)
    assert events_of(watched)[-1] == ("end", {"reason": "time"})
    await_true(lambda: not environments(), "its process is gone", 5)


def test_an_overloaded_replica_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "OVERLOADED_S", 0.01)
    errors = [Overloaded(1), Overloaded(1)]

    def busy(policy: ServedPolicy, batch: Batch) -> Batch:
        if errors:
            raise errors.pop()
        return policy.policy.act(batch)

    policy = playing(EXPLORING_BUNDLE, act=busy)
    events = events_of(Session(lambda: policy), lambda _, content: content.get("step") == 1)
    assert not errors
    assert [content["step"] for name, content in events if name == "step"] == [0, 1]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PolicyFailed("secret"), "the policy failed to compute an action; the server's log has the reason"),
        (EnvironmentFailed("it is broken"), "the environment failed: it is broken"),
    ],
)
def test_an_error_ends_the_session_with_its_message(error: Exception, message: str) -> None:
    def fail(*_: object) -> Batch:
        raise error

    policy = playing(EXPLORING_BUNDLE, act=fail)
    assert events_of(Session(lambda: policy))[-1] == ("end", {"reason": "failed", "message": message})


def test_a_process_that_died_has_its_own_reason() -> None:
    def kill(policy: ServedPolicy, batch: Batch) -> Batch:
        for child in environments():
            child.kill()
        return policy.policy.act(batch)

    policy = playing(EXPLORING_BUNDLE, act=kill)
    message = "the environment failed: its process ended"
    assert events_of(Session(lambda: policy))[-1] == ("end", {"reason": "lost", "message": message})


def test_the_process_is_closed_when_the_viewer_disconnects(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    close = EnvironmentProcess.close
    monkeypatch.setattr(EnvironmentProcess, "close", lambda self: (closed.append(self), close(self)))
    events_of(Session(lambda: EXPLORING), lambda name, _: name == "session")
    assert len(closed) == 1
