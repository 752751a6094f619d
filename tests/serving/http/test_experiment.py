"""Requests while a challenger answers a share of the episodes."""

import asyncio
import json
import threading
import time
from typing import Any

import numpy as np
import pytest

from serving.arguments import Arguments
from serving.experiments.experiment import Experiment, Step
from serving.http.policy_app import PolicyApp
from serving.policy.errors import PolicyFailed
from serving.protocols.episodes import EpisodeReader
from serving.replica.arms.arms import Challenge
from tests.serving.asking import Answer, ask, post, served
from tests.serving.experiment import CHALLENGERS, CHAMPIONS, NAMES, challenge, champion, experiment, is_challengers
from tests.serving.failing import FAILING, FATAL_OBSERVATION
from tests.serving.policies import CONTRARY_BUNDLE, COUNTING_BUNDLE, STEERING_BUNDLE
from tests.workshop import await_true

TILTED = b'{"observation": [0, 0, 1, 0]}'
TENSORS = b'{"inputs": [{"name": "observations", "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 1, 0]}]}'
ROUTES = [
    ("/", TILTED),
    ("/invocations", b'{"inputs": [[0, 0, 1, 0]]}'),
    ("/v2/models/cartpole-ppo/infer", TENSORS),
]


def running(**changes: Any) -> PolicyApp:
    """An application with version 3 as the champion and version 4, which takes the other action, as the challenger."""
    state = experiment(**changes)
    app = PolicyApp(champion(state))
    app.challenge = challenge(state)
    return app


def step(app: Any, episode: str, path: str = "/", body: bytes = TILTED, **headers: str) -> Answer:
    names = {"X-Episode-Id": episode, "Content-Type": "application/json"}
    return ask(app, path=path, body=body, headers=names | {name.replace("_", "-"): it for name, it in headers.items()})


def version(answer: Answer) -> int:
    assert answer.status == 200, answer.body
    return int(answer.headers["x-model-version"])


def described(app: PolicyApp) -> Any:
    return ask(app, "GET", "/model").json()["experiment"]


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_each_episode_is_answered_by_the_version_of_its_arm(path: str, body: bytes) -> None:
    app = running()
    for name in NAMES[:40]:
        assert version(step(app, name, path, body)) == (4 if is_challengers(name) else 3)


def test_the_version_that_answers_computes_the_action() -> None:
    app = running()
    assert step(app, CHALLENGERS[0]).json() == {"action": 0}
    assert step(app, CHAMPIONS[0]).json() == {"action": 1}


@pytest.mark.parametrize("key", ["episode", "episod\\u0065"])
def test_a_key_of_the_body_names_the_episode_as_the_header_does(key: str) -> None:
    app = running()
    for name in NAMES[:20]:
        body = f'{{"observation": [0, 0, 1, 0], "{key}": "{name}"}}'.encode()
        assert version(ask(app, body=body)) == (4 if is_challengers(name) else 3)


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/", TILTED, {}),
        ("/", b'{"observations": [[0, 0, 1, 0]], "episodes": ["%s"]}' % CHALLENGERS[0].encode(), {}),
        ("/", b'{"observation": [0, 0, 1, 0], "episode": null}', {}),
        ("/v2/models/cartpole-ppo/versions/3/infer", TENSORS, {"X-Episode-Id": CHALLENGERS[0]}),
    ],
)
def test_a_request_without_one_episode_or_for_a_version_is_answered_by_the_champion_and_not_counted(
    path: str, body: bytes, headers: dict[str, str]
) -> None:
    app = running()
    assert version(ask(app, path=path, body=body, headers=headers)) == 3
    assert described(app)["answered"] == {"champion": 0, "challenger": 0}


@pytest.mark.parametrize(
    ("body", "name"), [(b"{", CHALLENGERS[0]), (b'{"observation": NaN, "episode": ["\\ud800"]}', ""), (b"[]", "")]
)
def test_a_malformed_request_is_rejected_as_without_an_experiment(body: bytes, name: str) -> None:
    headers = {"X-Episode-Id": name} if name else {}
    expected = ask(PolicyApp(served()), body=body, headers=headers)
    found = ask(running(), body=body, headers=headers)
    assert (found.status, found.body) == (expected.status, expected.body)


def test_a_pin_is_preferred_to_the_arm() -> None:
    app = running()
    assert version(step(app, CHAMPIONS[0], x_pin_version="4")) == 4
    assert version(step(app, CHALLENGERS[0], x_pin_version="3")) == 3
    assert described(app)["answered"] == {"champion": 0, "challenger": 0}
    assert ask(app, "GET", "/model", headers={"X-Pin-Version": "4"}).json()["version"] == 4


def test_a_pin_that_agrees_with_the_arm_is_part_of_the_experiment() -> None:
    app = running()
    assert version(step(app, CHALLENGERS[0], x_pin_version="4")) == 4
    assert version(step(app, CHAMPIONS[0], x_pin_version="3")) == 3
    assert described(app)["answered"] == {"champion": 1, "challenger": 1}


def test_a_pin_on_an_unknown_version_is_answered_by_the_arm_and_says_so() -> None:
    answer = step(running(), CHALLENGERS[0], x_pin_version="1")
    assert (version(answer), answer.headers["x-repinned"]) == (4, "true")


@pytest.mark.parametrize("end", ["expired", "released"])
def test_after_the_end_all_episodes_are_the_champions_at_once(end: str) -> None:
    app = running(expires_s=time.time() + (-1 if end == "expired" else 1000))
    if end == "released":
        app.challenge = None
    answer = step(app, CHALLENGERS[0], x_pin_version="4")
    assert (version(answer), answer.headers["x-repinned"]) == (3, "true")
    assert version(step(app, CHALLENGERS[1])) == 3
    assert described(app)["share"] == 0


def test_before_the_first_step_the_champion_answers_and_a_pin_on_the_challenger_is_valid() -> None:
    app = running(shares=(Step(time.time() + 100, 0.5),))
    assert version(step(app, CHALLENGERS[0])) == 3
    assert version(step(app, CHALLENGERS[0], x_pin_version="4")) == 4
    assert described(app)["share"] == 0


def test_an_episode_of_the_challenger_goes_on_through_its_promotion() -> None:
    state = experiment()
    app = PolicyApp(champion(state))
    app.challenge = challenge(state)
    decided = experiment(decision="promoted", shares=state.shares, expires_s=state.expires_s)
    app.served = champion(decided)  # the poll that finds the decision
    app.challenge = None
    for _ in range(2):
        answer = step(app, CHALLENGERS[0], x_pin_version="4")
        assert (version(answer), "x-repinned" in answer.headers) == (4, False)
        assert version(step(app, CHAMPIONS[0], x_pin_version="3")) == 3
        app.served = served(CONTRARY_BUNDLE, version=4)  # the poll that finds it in the stage
    assert app.experiment.arms is None
    assert described(app) is None


def test_an_episode_of_the_challenger_goes_to_the_champion_after_a_rollback() -> None:
    app = running()
    app.served = champion(experiment(decision="rolled back"))
    app.challenge = None
    answer = step(app, CHALLENGERS[0], x_pin_version="4")
    assert (version(answer), answer.headers["x-repinned"]) == (3, "true")
    assert described(app)["decision"] == "rolled back"


def test_another_champion_ends_the_experiment() -> None:
    app = running()
    app.served = served(CONTRARY_BUNDLE, version=5)
    assert app.challenge is None
    assert version(step(app, CHALLENGERS[0])) == 5
    assert version(step(app, CHALLENGERS[0], x_pin_version="4")) == 5


def test_a_promoted_challenger_with_a_lower_number_leaves_the_champions_episodes_to_the_champion() -> None:
    state = experiment(champion=3, challenger=2)
    app = PolicyApp(champion(state))
    app.challenge = Challenge(state, served(CONTRARY_BUNDLE, version=2))
    app.served = served(CONTRARY_BUNDLE, version=2)
    assert version(step(app, CHAMPIONS[0], x_pin_version="3")) == 3
    assert version(step(app, CHAMPIONS[0])) == 2


def test_new_tags_of_the_champion_keep_the_challenger_its_batcher_and_the_counts() -> None:
    app = running()
    step(app, CHALLENGERS[0])
    before = app.challenge
    assert before is not None
    app.served = champion(before.experiment)
    later = experiment(shares=(Step(0.0, 0.5), Step(1.0, 1.0)))
    app.challenge = Challenge(later, before.served)
    assert app.challenge.served.batcher is before.served.batcher
    assert version(step(app, CHAMPIONS[0])) == 4
    assert described(app)["answered"] == {"champion": 0, "challenger": 2}


def test_the_description_has_the_experiment() -> None:
    app = running(expires_s=4102444800.0)
    for name in (*CHAMPIONS[:3], *CHALLENGERS[:2]):
        step(app, name)
    assert described(app) == {
        "id": "e1",
        "champion": 3,
        "challenger": 4,
        "share": 0.5,
        "expires_at": "2100-01-01T00:00:00+00:00",
        "decision": None,
        "answered": {"champion": 3, "challenger": 2},
        "failed": 0,
    }


def test_without_an_experiment_the_description_has_none_and_there_are_no_metrics() -> None:
    app = PolicyApp(served())
    assert described(app) is None
    assert list(app.numbers()) == []


def test_a_replica_that_cannot_load_the_challenger_shows_that_its_share_is_0() -> None:
    app = PolicyApp(champion(experiment()))
    assert version(step(app, CHALLENGERS[0])) == 3
    assert (described(app)["challenger"], described(app)["share"]) == (4, 0.0)


def test_the_metrics_count_the_requests_of_each_arm() -> None:
    app = running()
    for name in (*CHAMPIONS[:3], *CHALLENGERS[:2]):
        step(app, name)
    assert {(each.name, *each.labels.values()): each.value for each in app.numbers()} == {
        ("policy_experiment_requests", "champion"): 3,
        ("policy_experiment_requests", "challenger"): 2,
        ("policy_experiment_failed",): 0,
    }


def fail(_: Any) -> Any:
    raise PolicyFailed("it fails")


@pytest.mark.parametrize(("path", "body"), ROUTES)
@pytest.mark.parametrize("headers", [{}, {"x_pin_version": "4"}], ids=["free", "pinned"])
def test_a_challenger_that_fails_a_request_is_out_at_once_and_the_champion_answers(
    path: str, body: bytes, headers: dict[str, str]
) -> None:
    refused: list[Any] = []
    state = experiment()
    app = PolicyApp(champion(state), refuse=lambda version, code, _: refused.append((version.version, code)))
    app.challenge = challenge(state)
    app.challenge.served.policy.act = fail  # type: ignore[union-attr, method-assign]
    app = _again(app)
    for _ in range(3):
        answer = step(app, CHALLENGERS[0], path, body, **headers)
        assert (version(answer), answer.headers.get("x-repinned")) == (3, "true" if headers else None)
    assert app.challenge is None
    assert (described(app)["answered"], described(app)["failed"]) == ({"champion": 0, "challenger": 1}, 1)
    await_true(lambda: refused == [(4, "policy_failed")], "it is refused", 5)


def _again(app: PolicyApp) -> PolicyApp:
    """The same application, whose batcher has the replaced `act` of the challenger."""
    state, replaced = app.challenge  # type: ignore[misc]
    app.challenge = None
    app.challenge = Challenge(state, replaced)
    return app


def test_a_challenger_that_computes_nan_on_one_observation_is_out_at_once() -> None:
    state = experiment()
    app = PolicyApp(champion(state))
    app.challenge = challenge(state, FAILING["output_not_finite"])
    fatal = json.dumps({"observation": FATAL_OBSERVATION}).encode()
    assert [version(step(app, CHALLENGERS[0], body=body)) for body in (TILTED, fatal, TILTED)] == [4, 3, 3]
    assert (described(app)["answered"], described(app)["failed"]) == ({"champion": 0, "challenger": 2}, 1)


def test_a_request_that_both_fail_is_no_failure_of_the_challenger() -> None:
    state = experiment()
    app = PolicyApp(champion(state, STEERING_BUNDLE))  # NaN where the observation is 7
    app.challenge = challenge(state, STEERING_BUNDLE)
    assert step(app, CHALLENGERS[0], body=b'{"observation": [7]}').status == 500
    assert (described(app)["answered"], described(app)["failed"]) == ({"champion": 0, "challenger": 0}, 0)


def test_a_version_before_the_champion_that_is_refused_meanwhile_answers_no_episode() -> None:
    state = experiment()
    app = PolicyApp(served(version=2))
    app.served = champion(state, FAILING["output_not_finite"])
    app.challenge = challenge(state)
    app.served.fallback = None  # as `Withdrawal.keep_fallback` does
    fatal = json.dumps({"observation": FATAL_OBSERVATION}).encode()
    answer = step(app, CHAMPIONS[0], body=fatal)
    assert (answer.status, answer.json()["error"]["code"]) == (500, "output_not_finite")


def test_of_two_headers_the_one_that_is_recorded_decides_the_arm() -> None:
    headers = tuple((b"x-episode-id", name.encode()) for name in (CHAMPIONS[0], CHALLENGERS[0]))
    claim = EpisodeReader().of_headers("native", headers).claim
    assert claim is not None
    assert claim.episode == CHALLENGERS[0]
    _, answered, _ = asyncio.run(post(running(), TILTED, more=headers))
    assert answered[b"x-model-version"] == b"4"


@pytest.mark.parametrize("pin", ["3", "4", None])
@pytest.mark.parametrize("asked", ["2", "3", "4", ""])
def test_a_request_for_a_version_is_answered_by_that_version_or_by_none(asked: str, pin: str | None) -> None:
    """The champion is chosen without a pin; the challenger answers only if the pin names it, too."""
    app = running()
    headers = {"X_Pin_Version": pin} if pin else {}
    path = f"/v2/models/cartpole-ppo/versions/{asked}/infer"
    for name in (CHAMPIONS[0], CHALLENGERS[0]):
        answer = step(app, name, path, TENSORS, **headers)
        if asked == (pin or "3"):
            assert version(answer) == int(asked)
            assert answer.json()["model_version"] == asked
        else:
            assert answer.status == 404
    assert described(app)["answered"] == {"champion": 0, "challenger": 0}


def test_a_challenger_that_hangs_delays_no_request_of_the_champion() -> None:
    app, started, goes_on = running(), threading.Event(), threading.Event()
    threads = set()

    def hang(observations: Any) -> Any:
        threads.add(threading.current_thread())
        started.set()
        goes_on.wait(30)
        return np.zeros(len(observations), np.int64)

    app.challenge.served.policy.act = hang  # type: ignore[union-attr, method-assign]
    app = _again(app)

    async def play() -> list[int]:
        header = ((b"x-episode-id", CHALLENGERS[0].encode()),)
        hanging = [asyncio.create_task(post(app, TILTED, more=header)) for _ in range(3)]
        await asyncio.to_thread(started.wait, 10)
        answered = [await post(app, TILTED, more=((b"x-episode-id", name.encode()),)) for name in CHAMPIONS[:20]]
        assert not any(each.done() for each in hanging)
        goes_on.set()
        return [status for status, _, _ in (*answered, *await asyncio.gather(*hanging))]

    assert asyncio.run(play()) == [200] * 23
    assert threading.main_thread() not in threads


def test_a_quick_challenger_stays_out_of_the_event_loop() -> None:
    app, threads = running(), []
    computed = app.challenge.served.policy.act  # type: ignore[union-attr]

    def act(observations: Any) -> Any:
        threads.append(threading.current_thread())
        return computed(observations)

    app.challenge.served.policy.act = act  # type: ignore[union-attr, method-assign]
    app = _again(app)

    async def play() -> None:
        for _ in range(20):
            await post(app, TILTED, more=((b"x-episode-id", CHALLENGERS[0].encode()),))

    asyncio.run(play())
    assert len(threads) == 20
    assert threading.main_thread() not in threads


def test_what_a_challenger_answers_too_late_the_champion_answers_and_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serving.replica.batching.ANSWER_WITHIN_S", 0.05)
    monkeypatch.setattr("serving.replica.batching.EXPIRE_EVERY_S", 0.01)
    app, goes_on = running(), threading.Event()
    app.challenge.served.policy.act = lambda _: goes_on.wait(10)  # type: ignore[union-attr, method-assign]
    app = _again(app)

    async def play() -> Any:
        answer = await post(app, TILTED, more=((b"x-episode-id", CHALLENGERS[0].encode()),))
        goes_on.set()
        return answer

    status, headers, body = asyncio.run(play())
    assert (status, headers[b"x-model-version"], json.loads(body)) == (200, b"3", {"action": 1})
    assert (described(app)["failed"], app.challenge is None) == (1, False)  # the machine may have been busy


def test_a_recurrent_episode_begins_anew_when_the_champion_takes_it_over() -> None:
    state = experiment()
    app = PolicyApp(champion(state, COUNTING_BUNDLE))
    app.challenge = challenge(state, COUNTING_BUNDLE)
    token = step(app, CHALLENGERS[0], body=b'{"observation": [5]}').json()["state"]
    body = json.dumps({"observation": [-1], "state": token}).encode()
    assert step(app, CHALLENGERS[0], body=body, x_pin_version="4").json()["action"] == 1
    app.challenge = None
    answer = step(app, CHALLENGERS[0], body=body, x_pin_version="4").json()
    assert (answer["action"], answer["state_reset"]) == (0, True)


def test_an_experiment_without_a_journal_costs_an_application_no_record() -> None:
    app = running()
    assert app._journal is None
    assert version(step(app, CHALLENGERS[0])) == 4


def test_replicas_agree_on_every_episode() -> None:
    state = experiment(shares=(Step(0.0, 0.1),))
    apps = []
    for _ in range(3):
        apps.append(PolicyApp(champion(state), Arguments()))
        apps[-1].challenge = challenge(Experiment.from_tag(state.to_tag()))
    answers = [{name: version(step(app, name)) for name in NAMES} for app in apps]
    assert answers[0] == answers[1] == answers[2]
    assert 5 <= sum(number == 4 for number in answers[0].values()) <= 38
