"""Decisions and feedback, from the request to the journal."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.arguments import Arguments
from serving.experience.episodes import NO_EPISODE, NO_STEP, EpisodeHasher
from serving.experience.journal.journal import Journal, Recording
from serving.experience.journal.records import EXPLORED
from serving.experience.journal.sampling import Sample
from serving.experience.journal.segments import Place
from serving.http.policy_app import PolicyApp
from serving.policy.bundle import Bundle
from serving.policy.noise import Noise, NoisePart
from serving.replica.metrics import DESCRIPTIONS
from tests.serving.asking import Answer, ask, served
from tests.serving.experience.reading import decisions, dropped, feedback
from tests.serving.policies import (
    CARTPOLE_BUNDLE,
    COUNTING_BUNDLE,
    EXPLORING_BUNDLE,
    ROBOT_BUNDLE,
    ROBOT_OBSERVATION,
)

Start = Callable[..., PolicyApp]
HASHED = EpisodeHasher()
WHOLE = Recording()
PLACE = Place(Path(), "replica", {"model_uri": "models:/cartpole-ppo/Production"}, 1 << 24, 1 << 16)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start an application whose journal is in `tmp_path`."""
    journals = []

    def started(bundle: Bundle = CARTPOLE_BUNDLE, recording: Recording = WHOLE, **place: Any) -> PolicyApp:
        journal = Journal(replace(PLACE, **{"directory": tmp_path, **place}), recording)
        journal.start()
        journals.append(journal)
        return PolicyApp(served(bundle), Arguments(), journal=journal)

    yield started
    for journal in journals:
        journal.stop()


def post(app: PolicyApp, content: Any, path: str = "/", **headers: str) -> Answer:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(app, "POST", path, body, headers={"content-type": "application/json", **names})


ONE = {"observation": [0.1, 0.2, 0.3, 0.4]}


def test_a_decision_is_recorded_with_its_episode_step_and_previous_reward(start: Start, tmp_path: Path) -> None:
    app = start()
    answer = post(app, ONE, x_episode_id="robot-7", x_episode_step="4", x_episode_reward="-0.5").json()
    (decision,) = decisions(tmp_path)
    assert decision.episodes.ids == [HASHED("robot-7")]
    assert (decision.episodes.steps, decision.episodes.rewards) == ([4], [-0.5])
    assert (decision.version.version, decision.protocol, decision.flags & EXPLORED) == (3, "native", 0)
    np.testing.assert_array_equal(decision.inputs["observations"], np.array([ONE["observation"]], np.float32))
    assert decision.outputs["action"].tolist() == [answer["action"]]


def test_the_body_names_episodes_as_the_headers_do(start: Start, tmp_path: Path) -> None:
    app = start()
    post(app, {**ONE, "episode": "robot-7", "step": 4, "reward": 1})
    post(app, {**ONE, "reward": 1, "step": 4}, x_episode_id="robot-7")
    for decision in decisions(tmp_path):
        assert decision.episodes.ids == [HASHED("robot-7")]
        assert (decision.episodes.steps, decision.episodes.rewards) == ([4], [1.0])


def test_each_observation_of_a_batch_has_its_own_episode_or_none(start: Start, tmp_path: Path) -> None:
    app = start()
    batch = {"observations": [ONE["observation"]] * 3, "episodes": ["a", None, "b"], "steps": [1, None, 0]}
    post(app, {**batch, "rewards": [0.5, None, None]})
    (decision,) = decisions(tmp_path)
    assert decision.episodes.ids == [HASHED("a"), NO_EPISODE, HASHED("b")]
    assert decision.episodes.steps == [1, NO_STEP, 0]
    np.testing.assert_array_equal(decision.episodes.rewards, [0.5, np.nan, np.nan])


def test_every_http_protocol_records(start: Start, tmp_path: Path) -> None:
    app = start()
    tensor = {"name": "observations", "shape": [1, 4], "datatype": "FP32", "data": ONE["observation"]}
    post(app, {"inputs": [tensor]}, "/v2/models/cartpole-ppo/infer", x_episode_id="a", x_episode_step="0")
    post(app, {"inputs": [ONE["observation"]]}, "/invocations", x_episode_id="a", x_episode_step="1")
    post(app, ONE)
    found = decisions(tmp_path)
    assert [each.protocol for each in found] == ["inference_http", "invocations", "native"]
    assert [each.episodes.ids[0] for each in found] == [HASHED("a"), HASHED("a"), NO_EPISODE]
    assert [each.episodes.steps for each in found] == [[0], [1], [NO_STEP]]


def test_a_sampled_action_follows_from_the_recorded_seed(start: Start, tmp_path: Path) -> None:
    app = start(EXPLORING_BUNDLE)
    undecided = [0.0, 0.0, 0.0, 0.0]
    post(app, {"observations": [undecided] * 4, "explore": True})
    post(app, {"observations": [undecided] * 4, "explore": True, "seed": 7})
    post(app, {"observations": [undecided] * 4, "explore": True, "episodes": list("abcd"), "steps": [5] * 4})
    noise = Noise((NoisePart("gumbel", 2),))
    for decision in decisions(tmp_path):
        assert decision.flags & EXPLORED
        rows = [noise.draw(row + 1, seed)[row] for seed, row in zip(decision.seeds, decision.noise_rows, strict=True)]
        # The logits of the observation are equal, so the noise alone decides.
        np.testing.assert_array_equal(decision.outputs["action"], np.argmax(rows, axis=1))


def test_a_request_that_is_repeated_at_another_replica_draws_the_same_action(start: Start) -> None:
    first, other = start(EXPLORING_BUNDLE), PolicyApp(served(EXPLORING_BUNDLE))
    request = {"observation": [0.0] * 4, "explore": True}
    for step in range(30):
        named = {"x_episode_id": "robot-7", "x_episode_step": str(step)}
        assert post(first, request, **named).body == post(other, request, **named).body
    sampled = {post(first, request, x_episode_id="robot-7", x_episode_step=str(step)).body for step in range(30)}
    assert len(sampled) == 2, "steps draw noise of their own"


def test_states_and_nested_observations_are_recorded(start: Start, tmp_path: Path) -> None:
    counting = start(COUNTING_BUNDLE, replica="counting")
    first = post(counting, {"observation": [0.0]}).json()
    post(counting, {"observation": [0.0], "state": first["state"]})
    before, after = (each.inputs for each in decisions(tmp_path))
    states = before.keys() - {"observations"}
    assert states
    assert not any(before[state].any() for state in states)
    assert any(after[state].any() for state in states)
    robot = start(ROBOT_BUNDLE, replica="robot", directory=tmp_path / "robot")
    post(robot, {"observation": ROBOT_OBSERVATION})
    (decision,) = decisions(tmp_path / "robot")
    assert len(decision.inputs) == 5
    assert len(decision.outputs) == 4


def test_observations_can_be_recorded_as_digests_or_not_at_all(start: Start, tmp_path: Path) -> None:
    for form in ("digest", "none"):
        app = start(recording=Recording(observations=form), directory=tmp_path / form)
        post(app, ONE)
        post(app, ONE)
    first, second = decisions(tmp_path / "digest")
    assert first.inputs["observations"].shape == (1, 16)
    np.testing.assert_array_equal(first.inputs["observations"], second.inputs["observations"])
    assert not decisions(tmp_path / "none")[0].inputs
    assert decisions(tmp_path / "none")[0].outputs["action"].tolist() in ([0], [1])


def test_a_sample_holds_whole_episodes_with_their_feedback(start: Start, tmp_path: Path) -> None:
    app = start(recording=Recording(sample=Sample(0.5)))
    names = [f"episode-{number}" for number in range(60)]
    for step in ("0", "1"):
        for name in names:
            post(app, ONE, x_episode_id=name, x_episode_step=step)
    for name in names:
        post(app, {"episode": name, "done": "terminated"}, "/feedback")
    ids = [decision.episodes.ids[0] for decision in decisions(tmp_path)]
    assert 10 < len(set(ids)) < 50
    assert all(ids.count(each) == 2 for each in ids)
    assert {bytes.fromhex(event["episode"]) for event in feedback(tmp_path)} == set(ids)


def test_feedback_is_accepted_and_recorded(start: Start, tmp_path: Path) -> None:
    app = start()
    one = {"episode": "a", "rewards": [{"step": 3, "reward": 1}], "return": 17, "length": 17, "done": "truncated"}
    answer = post(app, {**one, "version": 3, "final_observation": [0, 0, 0, 1]}, "/feedback")
    assert (answer.status, answer.json()) == (202, {"accepted": 1})
    assert post(app, {"events": [one, {**one, "episode": "b"}]}, "/feedback").json() == {"accepted": 2}
    first, second, third = feedback(tmp_path)
    assert bytes.fromhex(first["episode"]) == HASHED("a")
    assert bytes.fromhex(third["episode"]) == HASHED("b")
    assert {key: first[key] for key in ("rewards", "return", "length", "done", "version")} == {
        "rewards": [[3, 1.0]],
        "return": 17.0,
        "length": 17,
        "done": "truncated",
        "version": 3,
    }
    assert first["final_observation"] == {"observations": "AAAAAAAAAAAAAAAAAACAPw=="}
    assert second["final_observation"] is None


KEYS = "episode, rewards, return, length, done, final_observation, version"
NAME = "1 to 128 visible ASCII characters"
REWARD = 'an object {"step": an integer from 0 to 2**53, "reward": a finite number}'
MALFORMED = [
    (b"[1]", "body is a list, expected an object with " + KEYS),
    (b'{"a": 1}', 'body is an object with the unknown key "a", expected an object with ' + KEYS),
    (b'{"done": "terminated"}', f"episode is null, expected {NAME}"),
    (b'{"episode": "", "return": 1}', f'episode is the string "", expected {NAME}'),
    (b'{"episode": "a b", "return": 1}', f'episode is the string "a b", expected {NAME}'),
    (
        b'{"episode": "a"}',
        "body is a report of nothing, expected one of rewards, return, length, done, final_observation",
    ),
    (b'{"episode": "a", "return": NaN}', "return is NaN, expected a finite number"),
    (b'{"episode": "a", "length": -1}', "length is -1, expected an integer from 0 to 9007199254740992"),
    (b'{"episode": "a", "done": "over"}', 'done is the string "over", expected "terminated", "truncated" or null'),
    (b'{"episode": "a", "rewards": {}}', f"rewards is an object, expected a list, each element {REWARD}"),
    (b'{"episode": "a", "rewards": [{"step": 1}]}', f"rewards[0] is an object, expected {REWARD}"),
    (b'{"episode": "a", "rewards": [{"step": true, "reward": 1}]}', f"rewards[0] is an object, expected {REWARD}"),
    (b'{"events": {}}', 'events is an object, expected one event, or {"events": a list of them} and no other key'),
    (b'{"events": [{"episode": "a"}]}', None),
    (b'{"episode": "a", "final_observation": [1]}', None),
]


@pytest.mark.parametrize(("body", "message"), MALFORMED, ids=[body.decode() for body, _ in MALFORMED])
def test_malformed_feedback_is_refused_and_nothing_of_it_recorded(
    start: Start, tmp_path: Path, body: bytes, message: str | None
) -> None:
    answer = post(start(), body, "/feedback")
    error = answer.json()["error"]
    assert answer.status == 422
    assert message is None or error["message"] == message
    assert "events[0]" in error["message"] or "final_observation" in error["message"] or message
    assert not feedback(tmp_path)


def test_no_event_of_a_request_is_recorded_if_one_is_malformed(start: Start, tmp_path: Path) -> None:
    events = [{"episode": "a", "return": 1}, {"episode": "b", "return": "much"}]
    answer = post(start(), {"events": events}, "/feedback")
    assert answer.json()["error"]["message"] == 'events[1].return: the string "much", expected a finite number'
    assert not feedback(tmp_path)


INVALID = [
    ({}, {"x_episode_step": "1"}, "header_invalid"),
    ({}, {"x_episode_id": "a", "x_episode_step": "-1"}, "header_invalid"),
    ({}, {"x_episode_id": "a", "x_episode_step": "0", "x_episode_reward": "1"}, "header_invalid"),
    ({}, {"x_episode_id": "a", "x_episode_step": "1", "x_episode_reward": "inf"}, "header_invalid"),
    ({}, {"x_episode_id": "a" * 129}, "header_invalid"),
    ({"episode": 7}, {}, "option_invalid"),
    ({"step": 1}, {}, "option_invalid"),
    ({"episode": "a", "step": 1.0}, {}, "option_invalid"),
    ({"episode": "a", "reward": 1.0}, {}, "option_invalid"),
    ({"episode": "a"}, {"x_episode_id": "b"}, "option_invalid"),
    ({"episodes": ["a"]}, {}, "key_unknown"),
]


@pytest.mark.parametrize(("body", "headers", "code"), INVALID)
def test_an_invalid_episode_is_refused(
    start: Start, tmp_path: Path, body: dict[str, Any], headers: dict[str, str], code: str
) -> None:
    answer = post(start(), ONE | body, **headers)
    assert (answer.status, answer.json()["error"]["code"]) == (422, code)
    assert not decisions(tmp_path)


def test_a_header_names_no_episode_of_a_batch(start: Start) -> None:
    answer = post(start(), {"observations": [ONE["observation"]] * 2}, x_episode_id="a")
    assert (answer.status, answer.json()["error"]["code"]) == (422, "episode_ambiguous")


def test_without_recording_there_is_no_route_no_file_and_episodes_do_no_harm(tmp_path: Path) -> None:
    app = PolicyApp(served())
    assert post(app, {"episode": "a", "return": 1}, "/feedback").json()["error"]["code"] == "path_unknown"
    assert "/feedback" not in ask(app, "GET", "/openapi.json").json()["paths"]
    assert post(app, ONE, x_episode_id="a", x_episode_step="0").status == 200
    assert not list(tmp_path.iterdir())


def test_a_full_journal_drops_decisions_and_says_how_many(start: Start, tmp_path: Path) -> None:
    app = start(max_bytes=3 << 16)
    answers = [post(app, {"observations": [ONE["observation"]] * 256}).status for _ in range(40)]
    journal = app._journal
    assert answers == [200] * 40
    assert journal.counts.decisions + journal.counts.dropped == 40 * 256
    assert journal.counts.dropped > 0
    for path in sorted(tmp_path.glob("*.segment"))[:2]:
        path.unlink()  # they have become data
    journal._segments._retry_at = 0.0
    journal._segments.maintain()
    assert post(app, ONE).status == 200
    assert dropped(tmp_path)[-1]["decisions"] == journal.counts.dropped


def test_a_journal_can_refuse_requests_that_it_cannot_record(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    app = start(recording=Recording(refuses=True), directory=tmp_path / "file")
    answer = post(app, ONE)
    assert (answer.status, answer.json()["error"]["code"]) == (503, "journal_full")
    assert answer.headers["retry-after"] == "1"


def test_a_journal_that_cannot_be_written_fails_no_request(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    app = start(directory=tmp_path / "file")
    assert post(app, ONE).status == 200
    assert app._journal.counts.dropped == 1


def test_the_description_of_the_replica_has_the_online_return_of_each_version(start: Start) -> None:
    app = start()
    assert ask(app, "GET", "/model").json()["online"] == {}
    ends = [
        {"episode": "a", "return": 10, "length": 12, "done": "terminated"},
        {"episode": "b", "return": 4.0, "done": "truncated", "version": 2},
    ]
    for _ in range(2):  # the client repeats its report
        post(app, {"events": ends}, "/feedback")
    assert ask(app, "GET", "/model").json()["online"] == {
        "2": {"episodes": 1, "return_mean": 4.0, "length_mean": None, "length_count": 0},
        "3": {"episodes": 1, "return_mean": 10.0, "length_mean": 12.0, "length_count": 1},
    }


def test_a_replica_that_records_nothing_has_no_online_return() -> None:
    assert "online" not in ask(PolicyApp(served()), "GET", "/model").json()


def test_the_metrics_say_what_was_recorded_what_waits_and_what_episodes_returned(start: Start) -> None:
    app = start()
    for _ in range(3):
        post(app, ONE)
    post(app, {"episode": "a", "return": 10, "length": 12, "done": "terminated"}, "/feedback")
    numbers = {(each.name + each.suffix, *each.labels.values()): each.value for each in app.numbers()}
    assert numbers.pop(("policy_experience_backlog_bytes",)) > 0
    assert numbers == {
        ("policy_experience_recorded", "decisions"): 3,
        ("policy_experience_recorded", "feedback"): 1,
        ("policy_experience_dropped",): 0,
        ("policy_online_episodes", "3"): 1,
        ("policy_online_return_sum", "3"): 10,
        ("policy_online_length_sum", "3"): 12,
        ("policy_online_length_count", "3"): 1,
    }
    assert {each.name for each in app.numbers()} <= DESCRIPTIONS.keys()
    assert list(PolicyApp(served()).numbers()) == []
