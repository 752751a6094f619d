"""The part of the conformance suite that asks a server."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import requests

from pipeline.checks import Check
from pipeline.errors import ExportDiffers, ServerAnswered
from pipeline.export import compare
from pipeline.structures import Batch, stack, to_json
from pipeline.tensors import ACTION_DIST_INPUTS
from pipeline.verification import SAMPLES, Question, Subject, sampled, sampled_questions
from serving.spaces import ACTION

#: Observations that are asked singly, and in one request.
_SINGLE = 100
_BATCH = 100

#: Samples that a request asks for.
_SAMPLES_AT_ONCE = 100

_EPISODE_STEPS = 50
_TIMEOUT_S = 30.0


def through_http(subject: Subject, url: str) -> Iterator[Check]:
    """Ask a server of the same version.

    Raises:
        ServerAnswered: With an error, where an action is expected.
    """
    if subject.player.state_shapes:
        yield _episode(subject, url)
        return
    singles = [_ask(url, observation=_written(subject, each), details=True) for each in subject.questions[:_SINGLE]]
    answered = [{"action": each["action"], **each["details"]} for each in singles]
    yield _compared("HTTP, singly", subject, answered)
    answered = []
    for start in range(0, len(subject.questions), _BATCH):
        batch = [_written(subject, each) for each in subject.questions[start : start + _BATCH]]
        answer = _ask(url, observations=batch, details=True)
        answered += [
            {"action": action, **details} for action, details in zip(answer["actions"], answer["details"], strict=True)
        ]
    yield _compared(f"HTTP, batches of {_BATCH}", subject, answered)
    yield sampled("HTTP, sampled", subject, [_samples(subject, url, each) for each in sampled_questions(subject)])


def _samples(subject: Subject, url: str, question: Question) -> Batch:
    batch = [_written(subject, question)] * _SAMPLES_AT_ONCE
    actions: list[Any] = []
    for seed in range(SAMPLES // _SAMPLES_AT_ONCE):
        actions += _ask(url, observations=batch, explore=True, seed=seed)["actions"]
    return stack(subject.action_space, actions, ACTION)


def _compared(name: str, subject: Subject, answered: list[Mapping[str, Any]]) -> Check:
    count = len(answered)
    found = stack(subject.action_space, [each["action"] for each in answered], ACTION)
    found[ACTION_DIST_INPUTS] = np.array([each[ACTION_DIST_INPUTS] for each in answered], np.float32)
    expected = {output: values[:count] for output, values in subject.expected.items()}
    try:
        compare(subject.action_space, expected, found)
    except ExportDiffers as error:
        return Check(name, count, f"{error.quantity} differ by {error.difference:.3g}")
    return Check(name, count, None)


def _episode(subject: Subject, url: str) -> Check:
    """Play on, with the server's opaque state and ours: both must say the same at each step."""
    environment = subject.environment.make()
    observation, _ = environment.reset(seed=0)
    state, opaque = subject.player.initial_state(), {}
    steps = 0
    while steps < _EPISODE_STEPS:
        answer = _ask(url, observation=to_json(subject.observation_space, observation), **opaque)
        opaque = {"state": answer["state"]}
        (action,), (state,) = subject.player.act([observation], [state])
        ours, its = (stack(subject.action_space, [each], ACTION) for each in (action, answer["action"]))
        steps += 1
        if any(not np.allclose(ours[name], its[name]) for name in ours):
            return Check("HTTP, an episode", steps, f"actions differ at step {steps}")
        observation, _, terminated, truncated, _ = environment.step(action)
        if terminated or truncated:
            observation, _ = environment.reset()
            state, opaque = subject.player.initial_state(), {}
    environment.close()  # type: ignore[no-untyped-call]
    return Check("HTTP, an episode", steps, None)


def _written(subject: Subject, question: Question) -> Any:
    return to_json(subject.observation_space, question.observation)


def _ask(url: str, **request: Any) -> Any:
    answer = requests.post(url, json=request, timeout=_TIMEOUT_S)
    if not answer.ok:
        raise ServerAnswered(url, answer.status_code, answer.text[:300])
    return answer.json()
