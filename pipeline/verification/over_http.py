"""The part of the conformance suite that queries a server."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import requests

from pipeline.environments.nested_spaces import Batch, stack
from pipeline.verification.checks import Check
from pipeline.verification.errors import ServerAnswered, ServesAnother
from pipeline.verification.sampling_tests import SAMPLES, check_samples, sampled_queries
from pipeline.verification.subject import Query, Subject, as_arrays
from serving.client.core import failure_reason, to_json
from serving.client.errors import ServerUnreachable
from serving.policy.tensors import ACTION, ACTION_DIST_INPUTS

#: The largest number of observations that are sent one by one.
_SINGLE = 100

#: The largest number of observations in one request.
_LARGEST_BATCH = 100

#: The largest body of a request in bytes, below the default limit of servers.
_LARGEST_BODY = 200_000

_EPISODE_STEPS = 50
_PARALLEL_EPISODES = 7
_TIMEOUT_S = 30.0


class VerifiedServer:
    """A server that must serve one version.

    Args:
        url: The URL with the route prefix, such as http://127.0.0.1:8000/cartpole-ppo.
        model: The name of the registered model.
        version: The number of the version.
        token: The bearer token, if the server requires one.
    """

    def __init__(self, url: str, model: str, version: int, token: str | None = None) -> None:
        self.url = url
        self._served = f"{model} version {version}"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def query(self, **request: Any) -> Any:
        """Send a request for actions and return the JSON body of the response.

        Raises:
            ServerAnswered: If the server responds with an error.
            ServesAnother: If it serves another model or version.
            ServerUnreachable: If there is no response.
        """
        try:
            response = requests.post(self.url, json=request, headers=self._headers, timeout=_TIMEOUT_S)
        except requests.RequestException as error:
            raise ServerUnreachable(self.url, failure_reason(error)) from error
        headers = response.headers
        served = f"{headers.get('X-Model-Name')} version {headers.get('X-Model-Version')}"
        if "X-Model-Name" in headers and served != self._served:
            raise ServesAnother(self.url, served, self._served)
        if not response.ok:
            raise ServerAnswered(self.url, response.status_code, response.text[:300])
        return response.json()


def check_over_http(subject: Subject, server: VerifiedServer) -> Iterator[Check]:
    """Query a server of the same version. Raises as `VerifiedServer.query`."""
    if subject.player.state_shapes:
        yield from (_check_episodes(subject, server, count) for count in (1, _PARALLEL_EPISODES))
        return
    observations = [to_json(query.observation) for query in subject.queries]
    singles = [server.query(observation=each, details=True) for each in observations[:_SINGLE]]
    yield _check_greedy("HTTP, singly", subject, [(each["action"], each["details"]) for each in singles])
    size = _batch_size(observations)
    answers: list[tuple[Any, Any]] = []
    for start in range(0, len(observations), size):
        answer = server.query(observations=observations[start : start + size], details=True)
        answers += zip(answer["actions"], answer["details"], strict=True)
    yield _check_greedy(f"HTTP, batches of {size}", subject, answers)
    if subject.policy.interface.noise is not None:
        samples = [_samples(subject, server, query, size) for query in sampled_queries(subject)]
        yield check_samples("HTTP, sampled", subject, samples)


def _batch_size(observations: list[Any]) -> int:
    longest = max(len(json.dumps(each)) for each in observations)
    return max(1, min(_LARGEST_BATCH, _LARGEST_BODY // longest))


def _samples(subject: Subject, server: VerifiedServer, query: Query, size: int) -> Batch:
    observation = to_json(query.observation)
    actions: list[Any] = []
    while len(actions) < SAMPLES:
        batch = [observation] * min(size, SAMPLES - len(actions))
        actions += server.query(observations=batch, explore=True, seed=len(actions))["actions"]
    return stack(subject.action_space, actions, ACTION)


def _check_greedy(name: str, subject: Subject, answers: list[tuple[Any, Any]]) -> Check:
    found = stack(subject.action_space, [action for action, _ in answers], ACTION)
    dist_inputs = np.array([details[ACTION_DIST_INPUTS] for _, details in answers], np.float32)
    # JSON has no infinite numbers: null, which becomes NaN, is the minus infinity of a masked action.
    found[ACTION_DIST_INPUTS] = np.where(np.isnan(dist_inputs), -np.inf, dist_inputs)
    return subject.check_greedy(name, found)


def _check_episodes(subject: Subject, server: VerifiedServer, count: int) -> Check:
    """Play episodes in parallel; the server receives its own states, and its actions must be those of the graph."""
    name = "HTTP, an episode" if count == 1 else f"HTTP, {count} parallel episodes"
    with contextlib.ExitStack() as opened:
        environments = [opened.enter_context(contextlib.closing(subject.environment.make())) for _ in range(count)]
        observations = [each.reset(seed=seed)[0] for seed, each in enumerate(environments)]
        states = [subject.player.initial_state() for _ in environments]
        server_states: list[Any] = [None] * count
        for step in range(1, _EPISODE_STEPS + 1):
            sent = [to_json(as_arrays(subject.observation_space, each)) for each in observations]
            server_actions, server_states = _recurrent_answer(server, sent, server_states)
            actions, states = subject.player.act(observations, states)
            expected, found = (stack(subject.action_space, each, ACTION) for each in (actions, server_actions))
            if any(not np.allclose(expected[leaf], found[leaf]) for leaf in expected):
                return Check(name, step * count, f"actions differ at step {step}")
            for row, (environment, action) in enumerate(zip(environments, actions, strict=True)):
                observations[row], _, terminated, truncated, _ = environment.step(action)
                if terminated or truncated:
                    observations[row], _ = environment.reset()
                    states[row], server_states[row] = subject.player.initial_state(), None
    return Check(name, _EPISODE_STEPS * count, None)


def _recurrent_answer(
    server: VerifiedServer, observations: list[Any], states: list[Any]
) -> tuple[list[Any], list[Any]]:
    """Return the server's actions and next states; a single observation is not sent as a batch."""
    if len(observations) == 1:
        answer = server.query(observation=observations[0], state=states[0])
        return [answer["action"]], [answer["state"]]
    answer = server.query(observations=observations, states=states)
    return answer["actions"], answer["states"]
