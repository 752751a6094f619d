"""A share of the episodes is answered by sampled actions."""

import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from serving.arguments import Arguments
from serving.experience.episodes import EpisodeHasher
from serving.experience.journal.journal import Journal
from serving.experience.journal.records import EXPLORED
from serving.experience.journal.segments import Place
from serving.experiments.assignment import explores
from serving.http.policy_app import PolicyApp
from serving.policy.bundle import Bundle
from serving.registry import model_version
from tests.serving.asking import Answer, ask, served
from tests.serving.experience.reading import decisions
from tests.serving.policies import CARTPOLE_BUNDLE, COUNTING_BUNDLE, EXPLORING_BUNDLE

SHARE = 0.5
NAMES = [f"episode-{number}" for number in range(60)]
EXPLORING = [name for name in NAMES if explores(EpisodeHasher()(name), SHARE)]
GREEDY = [name for name in NAMES if name not in EXPLORING]
LEVEL = b'{"observation": [0, 0, 0.01, 0]}'
TENSORS = b'{"inputs": [{"name": "observations", "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 0.01, 0]}]}'
ROUTES = [
    ("/", LEVEL),
    ("/invocations", b'{"inputs": [[0, 0, 0.01, 0]]}'),
    ("/v2/models/cartpole-ppo/infer", TENSORS),
]


def app_of(share: float = SHARE, bundle: Bundle = EXPLORING_BUNDLE, journal: Journal | None = None) -> PolicyApp:
    return PolicyApp(served(bundle), Arguments(explore_share=share), journal=journal)


def step(app: PolicyApp, episode: str, number: int, path: str = "/", body: bytes = LEVEL) -> Answer:
    headers = {"X-Episode-Id": episode, "X-Episode-Step": str(number), "Content-Type": "application/json"}
    answer = ask(app, path=path, body=body, headers=headers)
    assert answer.status == 200, answer.body
    return answer


def actions(app: PolicyApp, episode: str, path: str = "/", body: bytes = LEVEL) -> set[bytes]:
    """The different answers to 20 steps with the same observation."""
    return {step(app, episode, number, path, body).body for number in range(20)}


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_the_share_of_the_episodes_explores_on_every_protocol(path: str, body: bytes) -> None:
    app = app_of()
    assert {len(actions(app, name, path, body)) for name in EXPLORING[:5]} == {2}
    assert {len(actions(app, name, path, body)) for name in GREEDY[:5]} == {1}


def test_a_key_of_the_body_names_the_episode_too() -> None:
    app = app_of()
    bodies = [
        b'{"observation": [0, 0, 0.01, 0], "episode": "%s", "step": %d}' % (EXPLORING[0].encode(), n) for n in range(20)
    ]
    assert len({ask(app, body=body).body for body in bodies}) == 2


def test_the_actions_are_those_of_a_request_with_explore() -> None:
    app, plain = app_of(), app_of(0.0)
    said = LEVEL[:-1] + b', "explore": true}'
    for number in range(20):
        expected = step(plain, EXPLORING[0], number, body=said).body
        assert step(app, EXPLORING[0], number).body == step(app_of(), EXPLORING[0], number).body == expected


@pytest.mark.parametrize("said", ["true", "false"])
def test_what_a_request_says_is_preferred(said: str) -> None:
    app, body = app_of(1e-9 if said == "true" else 1.0), LEVEL[:-1] + b', "explore": %s}' % said.encode()
    assert len(actions(app, NAMES[0], body=body)) == (2 if said == "true" else 1)


@pytest.mark.parametrize(
    "body",
    [LEVEL, b'{"observations": [[0, 0, 0.01, 0]], "episodes": ["e"], "steps": [3]}', b'{"observations": []}'],
)
def test_requests_without_one_episode_do_not_explore(body: bytes) -> None:
    app = app_of(1.0)
    assert len({ask(app, body=body).body for _ in range(20)}) == 1


def test_by_default_no_episode_explores() -> None:
    assert Arguments().explore_share == 0
    assert {len(actions(app_of(0.0), name)) for name in EXPLORING[:5]} == {1}


def test_the_share_is_met() -> None:
    count = sum(explores(EpisodeHasher()(f"e{number}"), 0.1) for number in range(4000))
    assert abs(count - 400) < 4 * (4000 * 0.1 * 0.9) ** 0.5


def test_a_decision_is_recorded_with_the_seed_of_its_noise(tmp_path: Path) -> None:
    journal = Journal(Place(tmp_path, "r1", {}, 1 << 24, 1 << 16))
    journal.start()
    app = app_of(journal=journal)
    for name in (EXPLORING[0], GREEDY[0]):
        step(app, name, 3)
    journal.stop()
    explored, greedy = decisions(tmp_path)
    assert explored.flags & EXPLORED
    digest = app.served.policy.digest
    assert explored.seeds == explored.episodes.seeds(digest)
    assert (greedy.flags & EXPLORED, greedy.seeds) == (0, None)


def test_a_recurrent_policy_explores(caplog: pytest.LogCaptureFixture) -> None:
    app = app_of(bundle=COUNTING_BUNDLE)
    assert {step(app, EXPLORING[0], number, body=b'{"observation": [0]}').json()["action"] for number in range(20)} == {
        0,
        1,
    }
    assert caplog.messages == []


def test_a_policy_without_noise_ignores_the_share_with_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    model_version.warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        app = app_of(bundle=CARTPOLE_BUNDLE)
        app.served = served(CARTPOLE_BUNDLE)
    assert {len(actions(app, name)) for name in NAMES[:5]} == {1}
    message = (
        "version 3 of 'cartpole-ppo' cannot sample actions, so explore_share has no effect: its graph has no noise"
    )
    assert caplog.messages == [message]
    said = ask(app, body=LEVEL[:-1] + b', "explore": true}', headers={"X-Episode-Id": EXPLORING[0]})
    assert said.json()["error"]["code"] == "explore_unsupported"


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_between_0_and_1(share: Any) -> None:
    with pytest.raises(ValidationError):
        Arguments(explore_share=share)
