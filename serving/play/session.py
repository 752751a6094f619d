"""One viewer's session: the policy in Production plays episodes in an environment, and tells of each step."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import numpy as np
import orjson

from serving.errors import ServingError
from serving.play.distributions import Distribution
from serving.play.errors import EnvironmentFailed
from serving.play.process import ENDED, EnvironmentProcess
from serving.policy.spaces import Json
from serving.protocols.native.protocol import json_codec

from serving.replica.errors import Overloaded
from serving.replica.served_policy import Act, ServedPolicy

SESSION_S = 300.0
BUSY_S = 1.0
"""How long a session stands back when the replica refuses others."""

Current = Callable[[], ServedPolicy]
ActFor = Callable[[ServedPolicy], Act]


class Session:
    """Asks the policy of the moment for each action, as any client would: a promotion shows in the next step.

    Args:
        current: what the replica serves now.
        act_for: how to ask it.
        length_s: when it ends.
    """

    def __init__(self, current: Current, act_for: ActFor, *, length_s: float = SESSION_S) -> None:
        self._current = current
        self._act_for = act_for
        self._length_s = length_s
        self._ends_at = time.monotonic() + length_s
        self._environment = current().policy.environment
        self._process = EnvironmentProcess()
        self._state: str | None = None

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Yield Server-Sent Events: `session`, then `step`s and `episode`s, then `end` with its reason."""
        try:
            async with contextlib.aclosing(self._played()) as played:
                async for event in played:
                    yield event
        except ServingError as error:
            lost = isinstance(error, EnvironmentFailed) and error.reason == ENDED
            yield _event("end", {"reason": "lost" if lost else "failed", "message": str(error)})
        finally:
            self._process.close()

    async def _played(self) -> AsyncGenerator[bytes, None]:
        stage = await self._process.ask({"environment": self._environment.to_json()})
        yield _event("session", {**self._described(), **stage})
        seed = int(np.random.default_rng().integers(1 << 31))
        reason, period_s = None, 1 / stage["steps_per_s"]
        while reason is None:
            async with contextlib.aclosing(self._episode(seed, period_s)) as episode:
                async for event in episode:
                    yield event
            seed, reason = seed + 1, self._over()
        yield _event("end", {"reason": reason})

    async def _episode(self, seed: int, period_s: float) -> AsyncGenerator[bytes, None]:
        shown = await self._process.ask({"seed": seed})
        self._state = None
        number, episode_return, done = 0, 0.0, False
        while not done and self._over() is None:
            due = time.monotonic() + period_s
            served, answer, latency_ms = await self._act(shown["observation"])
            facts = {"step": number, "return": episode_return, "latency_ms": round(latency_ms, 3)}
            yield _event("step", {**_step(served, shown, answer), **facts})
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            shown = await self._process.ask({"action": answer["action"]})
            number, episode_return, done = number + 1, episode_return + shown["reward"], shown["done"]
            if done:
                ended = {"return": episode_return, "steps": number, "seed": seed, "version": served.version.version}
                yield _event("episode", {**ended, "picture": shown["picture"]})

    async def _act(self, observation: Json) -> tuple[ServedPolicy, dict[str, Json], float]:
        """Return who answered, what, and after how many milliseconds."""
        while True:
            served, begun = self._current(), time.perf_counter()
            state = {} if self._state is None else {"state": self._state}
            request = json.dumps({"observation": observation, "details": True, **state}).encode()
            try:
                codec = served.prepared(json_codec)
                rows, _ = codec.decode(request)
                actions = await self._act_for(served)(rows)
            except Overloaded:
                await asyncio.sleep(BUSY_S)
                continue
            answer = orjson.loads(codec.encode(actions, batched=False))
            self._state = answer.get("state")
            return served, answer, (time.perf_counter() - begun) * 1e3

    def _over(self) -> str | None:
        """Return why the session ends, if it does: its time is up, or a promotion brought another environment."""
        if time.monotonic() >= self._ends_at:
            return "time"
        return None if self._current().policy.environment == self._environment else "environment"

    def _described(self) -> dict[str, Json]:
        version = self._current().version
        return {
            "name": version.name,
            "uri": version.uri,
            "environment": self._environment.id,
            "length_s": self._length_s,
        }


def _step(served: ServedPolicy, shown: dict[str, Json], answer: dict[str, Json]) -> dict[str, Any]:
    details = answer.get("details") or {}
    distribution = Distribution(served.policy.action_space).read(details.get("action_dist_inputs"))
    return {
        "version": served.version.version,
        "observation": _readable(shown["observation"]),
        "picture": shown["picture"],
        "action": answer["action"],
        "value": details.get("value"),
        "distribution": distribution,
    }


def _readable(observation: Json) -> Json:
    """Leave out the bytes of large arrays: their dtype and shape stay."""
    if isinstance(observation, dict):
        return {key: _readable(part) for key, part in observation.items() if key != "base64"}
    return [_readable(part) for part in observation] if isinstance(observation, list) else observation


def _event(name: str, content: dict[str, Json]) -> bytes:
    """Return an event as html.spec.whatwg.org/multipage/server-sent-events.html has it."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(content))
