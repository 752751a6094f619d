"""One viewer's session: the served policy plays episodes in an environment, and each step is an event."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import numpy as np
import orjson

from serving.errors import ServingError
from serving.play.distributions import Distribution
from serving.play.environment import MAX_STEPS_PER_S
from serving.play.errors import EnvironmentFailed
from serving.play.process import ENDED, EnvironmentProcess
from serving.play.sampled import SampledObservations
from serving.policy.environments import is_allowed, modules_of
from serving.policy.policy import Policy
from serving.policy.spaces import Json
from serving.protocols.native.json_codec import JsonCodec
from serving.replica.errors import Overloaded
from serving.replica.served_policy import ServedPolicy

SESSION_S = 300.0
OVERLOADED_S = 1.0
"""The delay before a session retries an action that an overloaded replica rejected."""

GetServed = Callable[[], ServedPolicy]


class Session:
    """Queries the currently served policy for each action, so that a promotion shows in the next step.

    Args:
        get_served: returns the policy that the replica currently serves.
        length_s: the duration of the session in seconds.
        environment_modules: modules that environments may be imported from, besides Gymnasium's.
    """

    def __init__(
        self, get_served: GetServed, *, length_s: float = SESSION_S, environment_modules: Sequence[str] = ()
    ) -> None:
        self._get_served = get_served
        self._length_s = length_s
        self._ends_at = time.monotonic() + length_s
        policy = get_served().policy
        self._environment = policy.environment
        self._process = _process(policy, environment_modules)
        self._state: str | None = None

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Yield Server-Sent Events: `session`, then `step`s and `episode`s, then `end` with its reason."""
        try:
            async with contextlib.aclosing(self._episodes()) as episodes:
                while True:
                    # The session ends in time, however long an overload or a step of the environment lasts.
                    async with asyncio.timeout(self._ends_at - time.monotonic()):
                        event = await anext(episodes, None)
                    if event is None:
                        return
                    yield event
        except TimeoutError:
            yield _event("end", {"reason": "time"})
        except ServingError as error:
            lost = isinstance(error, EnvironmentFailed) and error.reason == ENDED
            yield _event("end", {"reason": "lost" if lost else "failed", "message": str(error)})
        finally:
            self._process.close()

    async def _episodes(self) -> AsyncGenerator[bytes, None]:
        description = await self._process.request({"environment": self._environment.to_json()})
        version = self._get_served().version
        model = {"name": version.name, "uri": version.uri, "environment": self._environment.id}
        yield _event("session", {**model, "length_s": self._length_s, **description})
        seed = int(np.random.default_rng().integers(1 << 31))
        reason, period_s = None, 1 / min(float(description["steps_per_s"]), MAX_STEPS_PER_S)
        while reason is None:
            async with contextlib.aclosing(self._episode(seed, period_s)) as episode:
                async for event in episode:
                    yield event
            seed, reason = seed + 1, self._end_reason()
        yield _event("end", {"reason": reason})

    async def _episode(self, seed: int, period_s: float) -> AsyncGenerator[bytes, None]:
        current = await self._process.request({"seed": seed})
        self._state = None
        number, episode_return, done = 0, 0.0, False
        while not done and self._end_reason() is None:
            due = time.monotonic() + period_s
            served, answer, latency_ms = await self._act(current["observation"])
            progress = {"step": number, "return": episode_return, "latency_ms": round(latency_ms, 3)}
            yield _event("step", {**_describe_step(served, current, answer), **progress})
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            current = await self._process.request({"action": answer["action"]})
            number, episode_return, done = number + 1, episode_return + current["reward"], current["done"]
            if done:
                summary = {"return": episode_return, "steps": number, "seed": seed, "version": served.version.version}
                yield _event("episode", {**summary, "picture": current["picture"]})

    async def _act(self, observation: Json) -> tuple[ServedPolicy, dict[str, Json], float]:
        """Return the policy that answered, its answer, and the latency in milliseconds."""
        while True:
            served, start = self._get_served(), time.perf_counter()
            codec = served.prepared(JsonCodec)
            state = {} if self._state is None else {"state": self._state}
            request = json.dumps({"observation": observation, "details": True, **state}).encode()
            try:
                actions = await served.act(codec.decode(request).observations)
            except Overloaded:
                await asyncio.sleep(OVERLOADED_S)
                continue
            answer = orjson.loads(codec.encode(actions, batched=False))
            self._state = answer.get("state")
            return served, answer, (time.perf_counter() - start) * 1e3

    def _end_reason(self) -> str | None:
        """Return "time" when the session is over, "environment" after a promotion to another one, else None."""
        if time.monotonic() >= self._ends_at:
            return "time"
        return None if self._get_served().policy.environment == self._environment else "environment"


def _process(policy: Policy, allowed: Sequence[str]) -> EnvironmentProcess | SampledObservations:
    """Return the process of a policy's environment, or a substitute if that would import what is not allowed."""
    environment = policy.environment
    modules = modules_of(environment.id, environment.kwargs, environment.wrappers)
    refused = tuple(module for module in modules if not is_allowed(module, allowed))
    if refused:
        return SampledObservations(policy.observation_space, environment.id, refused)
    return EnvironmentProcess(modules)


def _describe_step(served: ServedPolicy, current: dict[str, Json], answer: dict[str, Json]) -> dict[str, Any]:
    details = answer.get("details") or {}
    distribution = Distribution(served.policy.action_space).describe(details.get("action_dist_inputs"))
    return {
        "version": served.version.version,
        "observation": _without_bytes(current["observation"]),
        "picture": current["picture"],
        "action": answer["action"],
        "value": details.get("value"),
        "distribution": distribution,
    }


def _without_bytes(observation: Json) -> Json:
    """Return the observation with only the dtype and the shape of arrays in base64."""
    if isinstance(observation, dict):
        return {key: _without_bytes(part) for key, part in observation.items() if key != "base64"}
    return [_without_bytes(part) for part in observation] if isinstance(observation, list) else observation


def _event(name: str, content: dict[str, Json]) -> bytes:
    """Return a Server-Sent Event (html.spec.whatwg.org/multipage/server-sent-events.html)."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(content))
