import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest

from serving.client import RecordedEpisodes
from serving.client.async_client import AsyncPolicyClient
from serving.client.client import PolicyClient
from serving.client.episodes import features
from serving.client.errors import EpisodeEnded, EpisodeInvalid, RequestRefused, ServerUnreachable
from serving.http.policy_app import PolicyApp
from tests.serving.asking import served
from tests.serving.client.recording import RecordingServer
from tests.serving.faulty_server import faulty_server
from tests.serving.policies import CONTRARY_BUNDLE, COUNTING_BUNDLE, ROBOT_ACTIONS, ROBOT_BUNDLE, STEERING_BUNDLE

TILTED = np.array([0, 0, 1, 0], np.float32)


@pytest.fixture
def server(app: PolicyApp) -> RecordingServer:
    return RecordingServer(app)


@pytest.fixture
def client(server: RecordingServer, serve_http: Callable[[Any], str]) -> Iterator[PolicyClient]:
    with PolicyClient(serve_http(server)) as client:
        yield client


def sent(server: RecordingServer, *names: str) -> list[tuple[str | None, ...]]:
    """The values of these headers in each request for actions."""
    return [tuple(each.headers.get(name) for name in names) for each in server.acts]


def test_the_requests_of_an_episode_name_it_its_steps_its_rewards_and_its_version(
    client: PolicyClient, server: RecordingServer
) -> None:
    with client.episode("dinner") as episode:
        assert episode.act(TILTED) == 1
        episode.reward(1.5)
        assert episode.act(-TILTED) == 0
        assert episode.act(TILTED) == 1
    names = ("x-episode-id", "x-episode-step", "x-episode-reward", "x-pin-version")
    assert sent(server, *names) == [
        ("dinner", "0", None, None),
        ("dinner", "1", "1.5", "3"),
        ("dinner", "2", None, "3"),
    ]
    assert all(each.body.keys() == {"observation"} for each in server.acts)
    assert len(set(sent(server, "x-request-id"))) == 3


def test_the_end_reports_the_last_reward_the_return_and_the_final_observation(
    client: PolicyClient, server: RecordingServer
) -> None:
    with client.episode("dinner") as episode:
        for _ in range(3):
            episode.act(TILTED)
            episode.reward(np.float32(0.5))
            episode.reward(2)
        assert episode.recorded is None
        episode.end("terminated", TILTED)
    assert server.events == [
        {
            "episode": "dinner",
            "rewards": [{"step": 2, "reward": 2.5}],
            "return": 7.5,
            "length": 3,
            "done": "terminated",
            "version": 3,
            "final_observation": [0, 0, 1, 0],
        }
    ]
    assert (episode.recorded, episode.total_reward, episode.step) == (True, 7.5, 3)


def test_an_episode_without_rewards_reports_no_return(client: PolicyClient, server: RecordingServer) -> None:
    with client.episode("dinner") as episode:
        episode.act(TILTED)
    assert server.events == [{"episode": "dinner", "length": 1, "done": "truncated", "version": 3}]


def test_an_exception_reports_nothing(client: PolicyClient, server: RecordingServer) -> None:
    with pytest.raises(ZeroDivisionError), client.episode() as episode:  # noqa: PT012
        episode.act(TILTED)
        _ = 1 / 0
    assert server.events == []
    assert (episode.done, episode.recorded) == (None, None)


def test_an_episode_without_steps_reports_nothing(client: PolicyClient, server: RecordingServer) -> None:
    with client.episode() as episode:
        pass
    assert (server.received, episode.recorded) == ([], False)


def test_the_default_ids_are_random_and_other_ids_are_checked(client: PolicyClient) -> None:
    assert len({client.episode().id for _ in range(100)}) == 100
    assert client.episode("x" * 128).id == "x" * 128
    for wrong in ("", "x" * 129, "two words", "caf\u00e9", "line\n"):
        with pytest.raises(EpisodeInvalid, match="expected 1 to 128 visible ASCII characters"):
            client.episode(wrong)


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), "-inf"])
def test_a_reward_that_is_not_finite_is_rejected(client: PolicyClient, reward: Any) -> None:
    episode = client.episode()
    episode.act(TILTED)
    with pytest.raises(EpisodeInvalid, match="expected a finite number"):
        episode.reward(reward)
    assert episode.total_reward is None


def test_a_reward_before_the_first_action_is_rejected(client: PolicyClient) -> None:
    with pytest.raises(EpisodeInvalid, match="no action yet"):
        client.episode().reward(1)


def test_an_end_of_another_name_is_rejected(client: PolicyClient) -> None:
    episode = client.episode()
    episode.act(TILTED)
    with pytest.raises(EpisodeInvalid, match="'done', expected 'terminated' or 'truncated'"):
        episode.end("done")  # type: ignore[arg-type]


def test_an_ended_episode_takes_neither_steps_nor_rewards_nor_another_end(client: PolicyClient) -> None:
    episode = client.episode("dinner")
    episode.act(TILTED)
    episode.end("terminated")
    wrong: list[Callable[[], Any]] = [
        lambda: episode.act(TILTED),
        lambda: client.act_batch([TILTED], episodes=[episode]),
        lambda: episode.reward(1),
        lambda: episode.end("truncated"),
    ]
    for each in wrong:
        with pytest.raises(EpisodeEnded, match="episode dinner has ended"):
            each()


def test_a_step_that_fails_can_be_repeated_with_its_reward(client: PolicyClient, server: RecordingServer) -> None:
    episode = client.episode()
    episode.act(TILTED)
    episode.reward(1)
    with pytest.raises(RequestRefused):
        episode.act([0])
    episode.act(TILTED)
    assert sent(server, "x-episode-step", "x-episode-reward") == [("0", None), ("1", "1.0"), ("1", "1.0")]


def test_all_attempts_of_a_step_have_one_identifier() -> None:
    with faulty_server("busy", "hang", "act") as server, PolicyClient(server.url, timeout_s=0.3) as client:
        assert client.episode().act([0]) == 1
    identifiers = [line for each in server.requests for line in each.splitlines() if b"x-request-id" in line.lower()]
    assert len(identifiers) == 3
    assert len(set(identifiers)) == 1


def test_a_server_without_feedback_is_no_error(app: PolicyApp, serve_http: Callable[[Any], str]) -> None:
    with PolicyClient(serve_http(app)) as client:
        for _ in range(3):
            with client.episode() as episode:
                episode.act(TILTED)
            assert episode.recorded is False
    assert app.counts.errors == 1  # it is not asked again for a while


def test_a_server_without_feedback_is_asked_again_later(
    app: PolicyApp, serve_http: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "LACKED_FOR_S", 0.0)
    with PolicyClient(serve_http(app)) as client:
        assert [client.feedback({"episode": "a", "return": 1.0}) for _ in range(2)] == [False, False]
    assert app.counts.errors == 2


def test_other_errors_of_feedback_are_raised_and_the_end_can_be_repeated(
    client: PolicyClient, server: RecordingServer
) -> None:
    server.statuses = [422, 202]
    episode = client.episode()
    episode.act(TILTED)
    with pytest.raises(RequestRefused, match="422 feedback_invalid"):
        episode.end("truncated")
    episode.end("terminated")
    assert [event["done"] for event in server.events] == ["truncated", "terminated"]
    assert episode.recorded


def test_feedback_that_a_server_rejects_for_a_moment_is_sent_again(
    client: PolicyClient, server: RecordingServer
) -> None:
    server.statuses = [503]
    assert client.feedback({"episode": "a", "rewards": [{"step": 3, "reward": 1.0}]})
    assert len(server.events) == 2


def test_an_end_that_no_server_answers_is_raised_and_can_be_repeated() -> None:
    with faulty_server("act", "break off") as server, PolicyClient(server.url, retries=0) as client:
        episode = client.episode()
        episode.act([0])
        with pytest.raises(ServerUnreachable):
            episode.end("terminated")
        assert episode.done is None


def test_an_episode_stays_with_its_version_and_later_ones_begin_with_the_new_one(
    app: PolicyApp, client: PolicyClient
) -> None:
    with client.episode() as old:
        assert old.act(TILTED) == 1
        app.served = served(CONTRARY_BUNDLE, version=4)
        assert old.act(TILTED) == 1
        with client.episode() as new:
            assert [new.act(TILTED), old.act(TILTED), new.act(TILTED)] == [0, 1, 0]
    assert [(each.version, each.repinned) for each in (old, new)] == [(3, False), (4, False)]


def test_an_episode_goes_on_with_the_current_version_when_its_own_is_gone(app: PolicyApp, client: PolicyClient) -> None:
    episode = client.episode()
    assert episode.act(TILTED) == 1
    for version in (4, 5, 6):
        app.served = served(CONTRARY_BUNDLE, version=version)
    assert episode.act(TILTED) == 0
    assert (episode.version, episode.repinned) == (6, True)


def test_the_state_of_a_recurrent_policy_belongs_to_its_episode(serve_http: Callable[[Any], str]) -> None:
    app = PolicyApp(served(COUNTING_BUNDLE))
    with PolicyClient(serve_http(app)) as client:
        first, second = client.episode(), client.episode()
        assert [first.act([5]), second.act([-5]), first.act([-1]), second.act([1])] == [1, 0, 1, 0]
        app.served = served(COUNTING_BUNDLE, version=4)
        assert [first.act([-1]), client.episode().act([-1]), client.act([-1])] == [1, 0, 0]
        client.reset()
        assert first.act([-1]) == 1


def test_actions_are_elements_of_the_space_of_the_version_that_answered(serve_http: Callable[[Any], str]) -> None:
    app = PolicyApp(served(ROBOT_BUNDLE))
    app.served = served(STEERING_BUNDLE, version=4)
    robot = {"arm": {"position": [0, 0, 0], "grip": 0}, "goal": [[[0, 0], [0, 0]], [1, 0]], "switches": [0, 0]}
    with PolicyClient(serve_http(app)) as client:
        old, new = client.episode(), client.episode()
        old.version = 3
        for _ in range(2):
            action = old.act(robot)
            assert ROBOT_ACTIONS.contains(action)
            assert action["drive"].dtype == np.float32
            assert new.act([0.5]).dtype == np.float32
        assert client.model_version == 4
    assert app.counts.errors == 0


def test_several_episodes_are_played_in_one_request(client: PolicyClient, server: RecordingServer) -> None:
    episodes = [client.episode(name) for name in "abc"]
    assert client.act_batch([TILTED, -TILTED, TILTED], episodes=episodes) == [1, 0, 1]
    episodes[1].reward(2)
    assert client.act_batch(np.stack([TILTED, -TILTED]), episodes=episodes[:2]) == [1, 0]
    first, second = server.acts
    assert {key: first.body.get(key) for key in ("episodes", "steps", "rewards")} == {
        "episodes": ["a", "b", "c"],
        "steps": [0, 0, 0],
        "rewards": None,
    }
    assert {key: second.body[key] for key in ("episodes", "steps", "rewards")} == {
        "episodes": ["a", "b"],
        "steps": [1, 1],
        "rewards": [None, 2.0],
    }
    assert sent(server, "x-pin-version", "x-episode-id") == [(None, None), ("3", None)]
    assert [each.step for each in episodes] == [2, 2, 1]


def test_named_and_played_episodes_share_a_request(serve_http: Callable[[Any], str]) -> None:
    server = RecordingServer(PolicyApp(served(COUNTING_BUNDLE)))
    with PolicyClient(serve_http(server)) as client:
        episode = client.episode("played")
        assert client.act_batch([[5], [-5]], episodes=[episode, "named"]) == [1, 0]
        assert server.acts[0].body["episodes"] == ["played", None]
        assert server.acts[0].body["steps"] == [0, None]
        assert [client.act([-1], episode=episode), client.act([1], episode="named")] == [1, 0]


def test_episodes_of_several_versions_get_a_request_each(
    app: PolicyApp, client: PolicyClient, server: RecordingServer
) -> None:
    old = [client.episode(name) for name in "ab"]
    client.act_batch([TILTED] * 2, episodes=old)
    app.served = served(CONTRARY_BUNDLE, version=4)
    new = client.episode("c")
    assert client.act_batch([TILTED] * 3, episodes=[old[0], new, old[1]]) == [1, 0, 1]
    assert [each.body["episodes"] for each in server.acts[1:]] == [["a", "b"], ["c"]]
    assert [each.version for each in (*old, new)] == [3, 3, 4]


def test_no_episode_makes_a_step_if_one_of_the_requests_fails(client: PolicyClient) -> None:
    old, new = client.episode(), client.episode()
    old.act(TILTED)
    with pytest.raises(RequestRefused):
        client.act_batch([TILTED, [0]], episodes=[old, new])
    assert [old.step, new.step] == [1, 0]


def test_an_episode_cannot_be_twice_in_a_batch(client: PolicyClient) -> None:
    episode = client.episode()
    with pytest.raises(EpisodeInvalid, match="in the batch twice"):
        client.act_batch([TILTED] * 2, episodes=[episode, episode])


def test_a_server_that_rejects_the_names_of_episodes_is_asked_without_them(serve_http: Callable[[Any], str]) -> None:
    async def earlier_release(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        bodies.append(json.loads(message["body"]))
        if "episodes" in bodies[-1]:
            message["body"] = b'{"observations": [], "unknown": 1}'

        async def receive_again() -> Any:
            return message

        await app(scope, receive_again, send)

    app, bodies = PolicyApp(served()), list[dict[str, Any]]()
    with PolicyClient(serve_http(earlier_release)) as client:
        episodes = [client.episode(), client.episode()]
        for _ in range(3):
            assert client.act_batch([TILTED, -TILTED], episodes=episodes) == [1, 0]
    assert ["episodes" in body for body in bodies] == [True, False, False, False]
    assert [each.step for each in episodes] == [3, 3]


def test_episodes_are_played_concurrently_with_asyncio(app: PolicyApp, serve_http: Callable[[Any], str]) -> None:
    server = RecordingServer(app)

    async def play(client: AsyncPolicyClient) -> tuple[int | None, set[int]]:
        async with client.episode() as episode:
            actions = set()
            for _ in range(10):
                actions.add(await episode.act(TILTED))
                episode.reward(1)
                if len(server.acts) > 60 and app.served.version.version == 3:
                    app.served = served(CONTRARY_BUNDLE, version=4)
            await episode.end("terminated", TILTED)
        assert episode.recorded
        return episode.version, actions

    async def play_all() -> list[tuple[int | None, set[int]]]:
        async with AsyncPolicyClient(serve_http(server)) as client:
            first = await asyncio.gather(*(play(client) for _ in range(10)))
            return [*first, *await asyncio.gather(*(play(client) for _ in range(10)))]

    assert asyncio.run(play_all()) == [(3, {1})] * 10 + [(4, {0})] * 10
    assert [(event["return"], event["length"]) for event in server.events] == [(10.0, 10)] * 20


def test_asyncio_episodes_can_share_requests_and_end_by_themselves(
    app: PolicyApp, serve_http: Callable[[Any], str]
) -> None:
    server = RecordingServer(app)

    async def play() -> None:
        async with AsyncPolicyClient(serve_http(server)) as client:
            async with client.episode("a") as first, client.episode("b") as second:
                assert await client.act_batch([TILTED, -TILTED], episodes=[first, second]) == [1, 0]
                app.served = served(CONTRARY_BUNDLE, version=4)
                new = client.episode("c")
                assert await client.act_batch([TILTED] * 3, episodes=[first, new, second]) == [1, 0, 1]
            with pytest.raises(ZeroDivisionError):
                async with new:
                    _ = 1 / 0
            assert await client.feedback({"episode": "c", "return": 1.0})

    asyncio.run(play())
    assert [(event["episode"], event.get("done")) for event in server.events] == [
        ("b", "truncated"),
        ("a", "truncated"),
        ("c", None),
    ]


def test_an_asyncio_episode_takes_a_server_without_feedback_as_no_error(
    app: PolicyApp, serve_http: Callable[[Any], str]
) -> None:
    async def play() -> None:
        async with AsyncPolicyClient(serve_http(app)) as client:
            for _ in range(2):
                async with client.episode() as episode:
                    await episode.act(TILTED)
                assert episode.recorded is False

    asyncio.run(play())
    assert app.counts.errors == 1


def test_the_wrapper_reports_the_episodes_of_an_environment(client: PolicyClient, server: RecordingServer) -> None:
    environment = RecordedEpisodes(gymnasium.make("CartPole-v1", max_episode_steps=5), client)
    with pytest.raises(gymnasium.error.ResetNeeded):
        environment.act(TILTED)
    for _ in range(2):
        observation, _ = environment.reset(seed=0)
        done = False
        while not done:
            observation, _, terminated, truncated, _ = environment.step(environment.act(observation))
            done = terminated or truncated
    assert [(event["return"], event["length"], event["done"]) for event in server.events] == [(5.0, 5, "truncated")] * 2
    assert server.events[0]["final_observation"] == observation.tolist()
    environment.close()


def test_the_wrapper_ends_an_episode_that_a_reset_interrupts_and_reports_none_that_is_left(
    client: PolicyClient, server: RecordingServer
) -> None:
    environment = RecordedEpisodes(gymnasium.make("CartPole-v1"), client)
    observation, _ = environment.reset(seed=0)
    environment.step(0)  # no decision of the server precedes it
    environment.step(environment.act(observation))
    observation, *_ = environment.step(1)  # counts for the server's last action
    environment.reset()
    environment.reset()  # nothing has happened since
    environment.step(environment.act(observation))
    environment.close()
    assert [(event["return"], event["length"], event["done"]) for event in server.events] == [(2.0, 1, "truncated")]
    assert server.events[0]["final_observation"] == observation.tolist()
