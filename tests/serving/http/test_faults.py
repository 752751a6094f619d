"""Versions that fail in service: what answers instead, and what is taken back."""

import asyncio
import json
import threading
from typing import Any

import pytest

from serving.arguments import Arguments
from serving.http.policy_app import PolicyApp
from serving.policy.bundle import Bundle
from serving.policy.errors import InferenceTimeout
from serving.policy.guards.watchdog import Guard
from serving.policy.policy import Policy
from serving.registry.model_version import ModelVersion
from serving.replica.errors import AnswerTooLate
from serving.replica.served_policy import ServedPolicy
from tests.serving.asking import Answer, ask, post, served
from tests.serving.failing import FAILING, FATAL_OBSERVATION
from tests.serving.policies import CARTPOLE_BUNDLE, EXPLORING_BUNDLE, STEERING_BUNDLE

FATAL = json.dumps({"observation": FATAL_OBSERVATION}).encode()
TILTED = b'{"observation": [0, 0, 1, 0]}'
TENSOR = {"name": "observations", "shape": [1, 4], "datatype": "FP32", "data": FATAL_OBSERVATION}
TENSORS = json.dumps({"inputs": [TENSOR]}).encode()
TIMEOUT_S = 0.05


def guarded(bundle: Bundle, version: int) -> ServedPolicy:
    policy = Policy.load(bundle, guard=Guard(TIMEOUT_S))
    return ServedPolicy(policy, served(bundle, version=version).version)


class Promoted:
    """An application whose version 3 was replaced by version 4, which fails, and what it refused."""

    def __init__(self, code: str = "output_not_finite", before: Bundle = CARTPOLE_BUNDLE) -> None:
        self.refused: list[tuple[int, str, str]] = []
        self.is_refused = threading.Event()
        self.app = PolicyApp(served(before), Arguments(inference_timeout_s=TIMEOUT_S), refuse=self.refuse)
        self.app.served = guarded(FAILING[code], 4)

    def refuse(self, version: Any, code: str, reason: str) -> None:
        self.refused.append((version.version, code, reason))
        self.is_refused.set()

    @property
    def codes(self) -> list[tuple[int, str]]:
        assert self.is_refused.wait(10)
        return [(version, code) for version, code, _ in self.refused]


def said(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.headers["x-model-version"]


@pytest.mark.parametrize("code", ["output_not_finite", "inference_timeout"])
def test_the_version_before_answers_and_this_one_is_taken_back(code: str) -> None:
    promoted = Promoted(code)
    assert said(ask(promoted.app, body=TILTED)) == (200, "4")
    answer = ask(promoted.app, body=FATAL)
    assert (said(answer), answer.json()) == ((200, "3"), {"action": 1})
    assert said(ask(promoted.app, body=TILTED)) == (200, "3")
    assert promoted.codes == [(4, code)]
    assert +promoted.app.metrics.requests_fallen_back == {code: 1}
    assert promoted.app.counts.errors == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/invocations", json.dumps({"inputs": [FATAL_OBSERVATION]}).encode()),
        ("/v2/models/cartpole-ppo/infer", TENSORS),
    ],
)
def test_it_does_so_on_every_protocol(path: str, body: bytes) -> None:
    promoted = Promoted()
    answer = ask(promoted.app, body=body, path=path, headers={"Content-Type": "application/json"})
    assert said(answer) == (200, "3")
    assert promoted.codes == [(4, "output_not_finite")]


def test_a_fault_that_the_version_before_has_too_is_one_of_the_observation() -> None:
    promoted = Promoted(before=FAILING["output_not_finite"])
    answer = ask(promoted.app, body=FATAL)
    assert (said(answer), answer.json()["error"]["code"]) == ((500, "4"), "output_not_finite")
    assert said(ask(promoted.app, body=TILTED)) == (200, "4")
    assert not promoted.refused


@pytest.mark.parametrize("before", [STEERING_BUNDLE, None], ids=["other spaces", "no version before"])
def test_without_a_version_that_can_answer_the_fault_is_the_answer(before: Bundle | None) -> None:
    promoted = Promoted(before=before or CARTPOLE_BUNDLE)
    if before is None:
        promoted.app.served.fallback = None
    for _ in range(2):
        assert ask(promoted.app, body=FATAL).json()["error"]["code"] == "output_not_finite"
    assert said(ask(promoted.app, body=TILTED)) == (200, "4")


def test_requests_in_progress_fall_back_with_the_one_at_fault() -> None:
    """A call with all of their observations is stopped once, and those that wait are not computed any more."""
    promoted = Promoted("inference_timeout")

    async def together() -> list[tuple[int, dict[bytes, bytes], bytes]]:
        requests = [FATAL if number in (3, 9) else TILTED for number in range(12)]
        return await asyncio.gather(*(post(promoted.app, body) for body in requests))

    responses = asyncio.run(together())
    assert {status for status, _, _ in responses} == {200}
    assert responses[3][1][b"x-model-version"] == responses[9][1][b"x-model-version"] == b"3"
    assert promoted.codes == [(4, "inference_timeout")]


def test_a_request_that_asks_for_noise_which_the_version_before_lacks_keeps_its_error() -> None:
    promoted = Promoted()
    promoted.app.served = served(EXPLORING_BUNDLE, version=5)
    promoted.app.served.policy._run = promoted.app.served.fallback.policy._run  # type: ignore[union-attr]
    answer = ask(promoted.app, body=b'{"observation": [0, 0, 1, 0], "explore": true}')
    assert (said(answer), answer.json()["error"]["code"]) == ((500, "5"), "policy_failed")


def test_a_pinned_version_that_fails_is_answered_by_the_current_one_and_released() -> None:
    refused: list[int] = []
    app = PolicyApp(served(FAILING["output_not_finite"]), refuse=lambda version, *_: refused.append(version.version))
    app.served = served(version=4)
    answer = ask(app, body=FATAL, headers={"X-Pin-Version": "3"})
    assert said(answer) == (200, "4")
    assert ask(app, body=TILTED, headers={"X-Pin-Version": "3"}).headers["x-repinned"] == "true"
    assert app.served.version.version == 4


@pytest.mark.parametrize("timeout_s", [0.1, 1.4], ids=["a call is stuck", "no call is"])
def test_a_request_that_is_late_is_answered_by_the_version_before_only_if_a_call_is_stuck(timeout_s: float) -> None:
    """As on a busy machine, where a call that is stuck is stopped later. Only then is the version taken back."""
    refused: list[str] = []
    app = PolicyApp(served(), Arguments(inference_timeout_s=timeout_s), refuse=lambda _, code, __: refused.append(code))
    app.served = served(version=4)
    late = AnswerTooLate(1.5, is_stuck=timeout_s < 1)

    def act(*_: Any) -> Any:
        raise late

    app.served.batcher.act = act  # type: ignore[method-assign]
    stuck, answer = app.served, ask(app, body=TILTED)
    assert said(answer) == ((200, "3") if late.is_stuck else (503, "4"))
    assert (app.served, refused) == (stuck, [])
    app._faults.note_timeout(InferenceTimeout(timeout_s), stuck)
    assert (app.served.version.version, stuck.is_withdrawn) == ((3, True) if late.is_stuck else (4, False))


def test_a_pinned_version_with_other_spaces_has_no_fallback() -> None:
    app = PolicyApp(served(STEERING_BUNDLE))
    app.served = served(version=4)
    answer = ask(app, body=b'{"observation": [7]}', headers={"X-Pin-Version": "3"})
    assert (said(answer), answer.json()["error"]["code"]) == ((500, "3"), "output_not_finite")


def test_only_one_version_before_the_served_one_stays_loaded() -> None:
    app = PolicyApp(served(version=3), Arguments(pin_grace_s=0))
    for version in (4, 5):
        app.served = served(version=version)
    assert app.served.fallback is not None
    assert (app.served.fallback.version.version, app.served.fallback.fallback) == (4, None)


def test_new_tags_of_the_served_version_keep_its_fallback_and_a_rollback_has_none() -> None:
    app = PolicyApp(served(version=3))
    app.served = served(version=4)
    app.served = served(version=4)
    assert app.served.fallback is not None
    assert app.served.fallback.version.version == 3
    app.served = served(version=3)
    assert app.served.fallback is None


class Crashed:
    """Another replica that has crashed, as `Crashes` reports it, and that is seen by one look."""

    def __init__(self, version: int) -> None:
        self.version, self.alarms = version, 1

    def has_alarm(self) -> bool:
        self.alarms -= 1
        return self.alarms >= 0

    def have_refused(self, version: ModelVersion) -> bool:
        return version.version == self.version


def test_a_version_that_has_crashed_another_replica_computes_nothing_more() -> None:
    app = PolicyApp(served(), crashes=Crashed(4))  # type: ignore[arg-type]
    app.served = served(version=4)
    app.served.policy._run = None  # type: ignore[assignment]
    assert [said(ask(app, body=TILTED)) for _ in range(2)] == [(200, "3")] * 2
    assert +app.metrics.requests_fallen_back == {"crashed": 1}


def test_a_request_that_the_version_before_fails_to_answer_does_not_keep_the_one_that_crashed() -> None:
    app = PolicyApp(served(FAILING["output_not_finite"]), crashes=Crashed(4))  # type: ignore[arg-type]
    app.served = served(version=4)
    answer = ask(app, body=FATAL)
    assert (said(answer), answer.json()["error"]["code"]) == ((500, "4"), "crashed")
    assert said(ask(app, body=TILTED)) == (200, "3")


@pytest.mark.parametrize("crashed", [3, 5])
def test_a_crash_of_another_version_changes_nothing(crashed: int) -> None:
    app = PolicyApp(served(), crashes=Crashed(crashed))  # type: ignore[arg-type]
    app.served = served(version=4)
    assert said(ask(app, body=TILTED)) == (200, "4")


def test_without_a_version_before_the_one_that_crashes_goes_on() -> None:
    app = PolicyApp(served(), crashes=Crashed(3))  # type: ignore[arg-type]
    assert said(ask(app, body=TILTED)) == (200, "3")
