"""The environment of one session, in a process of its own: a line of JSON in, a line of JSON out.

    python -m serving.play.environment

    {"environment": {"id": "CartPole-v1", "kwargs": {}}}  ->  {"scene": {"kind": "cartpole", ...}, "steps_per_s": 20}
    {"seed": 7}      ->  {"observation": [...], "picture": {...}}
    {"action": 1}    ->  {"observation": [...], "picture": {...}, "reward": 1.0, "done": false}

What fails is answered with {"error": "..."}. The process ends with its input, and with its parent.
"""

import base64
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

import gymnasium

from serving.play.scenes import Scene, scene_of
from serving.policy import environments
from serving.policy.errors import EnvironmentUnknown
from serving.policy.spaces import Json
from serving.processes import NICENESS, end_with_parent

MAX_STEPS_PER_S = 20.0
"""Enough to watch; a session must not burden the replica that answers others."""

LARGE = 64
"""Arrays of more numbers go in base64: nobody reads them."""


class Stage:
    """An environment that is played step by step, and what it looks like."""

    def __init__(self, described: dict[str, Json]) -> None:
        self._environment = _made(described)
        self._environment.reset(seed=0)  # what was never reset draws nothing
        self._scene: Scene = scene_of(self._environment)

    def describe(self) -> dict[str, Json]:
        """Return what there is to draw, and how fast: grid worlds ask for a few steps per second."""
        scene = self._scene.describe()
        wanted = self._environment.metadata.get("render_fps") or MAX_STEPS_PER_S
        fast = MAX_STEPS_PER_S if scene["kind"] != "frames" else min(MAX_STEPS_PER_S, float(wanted))
        return {"scene": scene, "steps_per_s": fast}

    def begin(self, seed: int) -> dict[str, Json]:
        """Begin an episode."""
        observation, _ = self._environment.reset(seed=seed)
        return self._shown(observation)

    def step(self, action: Json) -> dict[str, Json]:
        """Take one step with an action as the server answers it."""
        observation, reward, terminated, truncated, _ = self._environment.step(action)
        return {**self._shown(observation), "reward": float(reward), "done": bool(terminated or truncated)}

    def _shown(self, observation: Any) -> dict[str, Json]:
        return {"observation": plain(observation), "picture": self._scene.picture()}


def plain(value: Any) -> Json:
    """Return the JSON form of what an environment returns."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if getattr(value, "size", 0) > LARGE:
        content = value.astype(value.dtype.newbyteorder("<")).tobytes()
        return {"base64": base64.b64encode(content).decode(), "dtype": value.dtype.name, "shape": list(value.shape)}
    return value.tolist() if hasattr(value, "tolist") else value


def _made(described: dict[str, Json]) -> gymnasium.Env[Any, Any]:
    """Make the environment so that it draws frames, if it does."""
    env_id, kwargs, wrappers = described["id"], described["kwargs"], described.get("wrappers", ())
    with contextlib.suppress(EnvironmentUnknown):
        return environments.make(env_id, {**kwargs, "render_mode": "rgb_array"}, wrappers)
    return environments.make(env_id, kwargs, wrappers)


def answers(lines: TextIO) -> Iterator[dict[str, Json]]:
    """Answer each line with one; the first says which environment. Ends after an error."""
    try:
        stage = Stage(json.loads(next(lines))["environment"])
        yield stage.describe()
        for line in lines:
            asked = json.loads(line)
            yield stage.begin(asked["seed"]) if "seed" in asked else stage.step(asked["action"])
    except Exception as error:  # noqa: BLE001 - environments are anybody's code
        yield {"error": str(error) if isinstance(error, EnvironmentUnknown) else f"{type(error).__name__}: {error}"}


def main() -> None:
    """Play on stdin and stdout, until stdin ends."""
    end_with_parent()
    os.nice(NICENESS)
    # What an environment prints must not get between the answers.
    with os.fdopen(os.dup(1), "w") as output:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        for answer in answers(sys.stdin):
            print(json.dumps(answer), file=output, flush=True)
    os._exit(0)  # an environment's windows and threads need not come down well


if __name__ == "__main__":
    main()
