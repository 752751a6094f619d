"""What a real server recorded with explore_share, as the input of `ope`. Two servers are started, which takes minutes.

Each episode has two steps, as `recorded` describes. The served version prefers the wrong action a little.
"""

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.faults.arena import Registry
from tests.faults.recorder import Recorder
from tests.pipeline.ope.recorded import policy

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(900)]

NAME = "cartpole-ppo"
SERVED, RIGHT, WRONG = 1, 2, 3
EPISODES, STEPS = 1600, 2


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    registry = Registry(tmp_path_factory.mktemp("registry"))
    for weight in (-0.2, 9, -9):
        registry.register(policy(weight), name=NAME)
    registry.promote(SERVED, NAME)
    registry.shop.environment["MLFLOW_TRACKING_URI"] = registry.url
    yield registry
    registry.shop.end()


@pytest.fixture(scope="module")
def exploring(registry, tmp_path_factory):
    """The URI of episodes of which half were explored."""
    return recorded(registry, tmp_path_factory.mktemp("exploring"), "--explore-share", "0.5")


@pytest.fixture(scope="module")
def greedy(registry, tmp_path_factory):
    return recorded(registry, tmp_path_factory.mktemp("greedy"))


def recorded(registry, directory, *options):
    """Serve version 1 to clients that report rewards and ends, and return the URI of their whole episodes."""
    recorder = Recorder(registry, directory, "", *options, name=NAME)
    try:
        recorder.server.wait_up()
        with ThreadPoolExecutor(8) as clients:
            list(clients.map(lambda number: play(recorder.server.url, number), range(EPISODES)))
        recorder.await_converted()
    finally:
        recorder.server.end()
    done = registry.shop.python("pipeline", "experience", "compact", recorder.uri)
    assert done.returncode == 0, done.stdout + done.stderr
    return recorder.uri


def play(url, number):
    generator = np.random.default_rng(number)
    rewards = []
    for step in range(STEPS):
        observation = generator.normal(size=4)
        request = {"observation": observation.tolist(), "episode": f"episode-{number}", "step": step}
        action = post(url, request)["action"]
        rewards.append({"step": step, "reward": float(action == (observation[0] > 0))})
    post(f"{url}/feedback", {"episode": f"episode-{number}", "rewards": rewards, "length": STEPS, "done": "truncated"})


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def ope(registry, version, uri, *options):
    """The exit status of `ope`, and what it prints, in one line."""
    done = registry.shop.python("pipeline", "ope", f"models:/{NAME}/{version}", "--experience", uri, *options)
    print(done.stdout)  # noqa: T201 - the figures
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, " ".join(done.stdout.split())


def test_a_better_version_is_told_from_a_share_of_sampled_episodes(registry, exploring):
    status, shown = ope(registry, RIGHT, exploring)
    assert (status, "Is it better than what was recorded? Better." in shown) == (0, True), shown
    assert f"{EPISODES:,} episodes with {EPISODES * STEPS:,} steps of version {SERVED}, " in shown
    assert "Left out" not in shown
    assert ope(registry, RIGHT, exploring, "--against", f"models:/{NAME}/{SERVED}")[0] == 0


def test_a_worse_version_is_never_called_better(registry, exploring):
    status, shown = ope(registry, WRONG, exploring, "--against", f"models:/{NAME}/{RIGHT}")
    assert (status, "Is it better than version 2? Worse." in shown) == (3, True), shown
    assert ope(registry, WRONG, exploring)[0] != 0


def test_greedy_episodes_alone_cannot_tell(registry, greedy):
    status, shown = ope(registry, RIGHT, greedy)
    assert (status, "0 of them with sampled actions" in shown, "Cannot tell" in shown) == (4, True, True), shown
