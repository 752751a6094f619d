"""The part of the conformance suite that asks a server."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import requests
from gymnasium import Space

from pipeline.bundle.equivalence import compare
from pipeline.bundle.errors import ExportDiffers
from pipeline.environments.nested_spaces import Batch, flatten, nest, stack
from pipeline.verification.checks import Check
from pipeline.verification.errors import ServerAnswered, ServesAnother
from pipeline.verification.suite import SAMPLES, Question, Subject, sampled, sampled_questions
from serving.policy.spaces import LeafSpace, leaves
from serving.policy.tensors import ACTION, ACTION_DIST_INPUTS

#: Observations that are asked singly, and at most in one request.
_SINGLE = 100
_LARGEST_BATCH = 100

#: Less than what servers take by default.
_LARGEST_BODY = 200_000

#: Arrays of more numbers are sent as base64.
_LARGE = 1000

_EPISODE_STEPS = 50
_SIDE_BY_SIDE = 7
_TIMEOUT_S = 30.0


class Server:
    """A server that is asked for actions.

    Args:
        url: With the route prefix, as http://127.0.0.1:8000/cartpole-ppo.
        label: The model's name and version that its answers must bear.
        token: The bearer token, if it asks for one.
    """

    def __init__(self, url: str, label: tuple[str, int], token: str | None = None) -> None:
        self.url = url
        self._label = label
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def ask(self, **request: Any) -> Any:
        """The answer to a request.

        Raises:
            ServerAnswered: With an error, where an action is expected.
            ServesAnother: It serves another version, or a policy of another name.
        """
        answer = requests.post(self.url, json=request, headers=self._headers, timeout=_TIMEOUT_S)
        label = answer.headers.get("X-Model-Name"), answer.headers.get("X-Model-Version")
        if label[0] is not None and label != (self._label[0], str(self._label[1])):
            raise ServesAnother(self.url, " version ".join(map(str, label)), " version ".join(map(str, self._label)))
        if not answer.ok:
            raise ServerAnswered(self.url, answer.status_code, answer.text[:300])
        return answer.json()


def through_http(subject: Subject, server: Server) -> Iterator[Check]:
    """Ask a server of the same version. Raises as `Server.ask`."""
    if subject.player.state_shapes:
        yield from (_episodes(subject, server, count) for count in (1, _SIDE_BY_SIDE))
        return
    written = [_written(subject.observation_space, each.observation) for each in subject.questions]
    singles = [server.ask(observation=each, details=True) for each in written[:_SINGLE]]
    yield _compared("HTTP, singly", subject, [(each["action"], each["details"]) for each in singles])
    size = _batch_size(written)
    answered: list[tuple[Any, Any]] = []
    for start in range(0, len(written), size):
        answer = server.ask(observations=written[start : start + size], details=True)
        answered += zip(answer["actions"], answer["details"], strict=True)
    yield _compared(f"HTTP, batches of {size}", subject, answered)
    if subject.policy.interface.noise is None:
        return
    samples = [_samples(subject, server, each, size) for each in sampled_questions(subject)]
    yield sampled("HTTP, sampled", subject, samples)


def _batch_size(written: list[Any]) -> int:
    longest = max(len(json.dumps(each)) for each in written)
    return max(1, min(_LARGEST_BATCH, _LARGEST_BODY // longest))


def _samples(subject: Subject, server: Server, question: Question, size: int) -> Batch:
    written = _written(subject.observation_space, question.observation)
    actions: list[Any] = []
    while len(actions) < SAMPLES:
        batch = [written] * min(size, SAMPLES - len(actions))
        actions += server.ask(observations=batch, explore=True, seed=len(actions))["actions"]
    return stack(subject.action_space, actions, ACTION)


def _compared(name: str, subject: Subject, answered: list[tuple[Any, Any]]) -> Check:
    count = len(answered)
    found = stack(subject.action_space, [action for action, _ in answered], ACTION)
    found[ACTION_DIST_INPUTS] = np.array([details[ACTION_DIST_INPUTS] for _, details in answered], np.float32)
    expected = {output: values[:count] for output, values in subject.expected.items()}
    try:
        compare(subject.action_space, expected, found)
    except ExportDiffers as error:
        return Check(name, count, f"{error.quantity} differ by {error.difference:.3g}")
    return Check(name, count, None)


def _episodes(subject: Subject, server: Server, count: int) -> Check:
    """Play episodes side by side, with the server's opaque states and ours: both must say the same at each step."""
    name = "HTTP, an episode" if count == 1 else f"HTTP, {count} episodes at once"
    environments = [subject.environment.make() for _ in range(count)]
    observations = [each.reset(seed=seed)[0] for seed, each in enumerate(environments)]
    states = [subject.player.initial_state() for _ in environments]
    opaque: list[Any] = [None] * count
    for step in range(1, _EPISODE_STEPS + 1):
        written = [_written(subject.observation_space, each) for each in observations]
        answered, opaque = _answered(server, written, opaque)
        actions, states = subject.player.act(observations, states)
        ours, its = (stack(subject.action_space, each, ACTION) for each in (actions, answered))
        if any(not np.allclose(ours[leaf], its[leaf]) for leaf in ours):
            return Check(name, step * count, f"actions differ at step {step}")
        for row, (environment, action) in enumerate(zip(environments, actions, strict=True)):
            observations[row], _, terminated, truncated, _ = environment.step(action)
            if terminated or truncated:
                observations[row], _ = environment.reset()
                states[row], opaque[row] = subject.player.initial_state(), None
    for environment in environments:
        environment.close()  # type: ignore[no-untyped-call]
    return Check(name, _EPISODE_STEPS * count, None)


def _answered(server: Server, observations: list[Any], states: list[Any]) -> tuple[list[Any], list[Any]]:
    """The server's actions and next states: for one observation singly, for several in one request."""
    if len(observations) == 1:
        answer = server.ask(observation=observations[0], state=states[0])
        return [answer["action"]], [answer["state"]]
    answer = server.ask(observations=observations, states=states)
    return answer["actions"], answer["states"]


def _written(space: Space[Any], observation: Any) -> Any:
    """An observation as a client would send it: large arrays as base64."""
    flat = zip(leaves(space), flatten(space, observation), strict=True)
    return nest(space, [_leaf(leaf.space, value) for leaf, value in flat])


def _leaf(space: LeafSpace, value: Any) -> Any:
    array = np.asarray(value, space.dtype)
    if array.size <= _LARGE:
        return array.tolist()
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"base64": data, "dtype": array.dtype.name, "shape": list(array.shape)}
