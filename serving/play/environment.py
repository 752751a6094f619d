"""The environment of one session, in its own process: it reads a request per line of stdin, and writes a response.

    python -m serving.play.environment [MODULE ...]

    {"environment": {"id": "CartPole-v1", "kwargs": {}}}  ->  {"scene": {"kind": "cartpole", ...}, "steps_per_s": 20}
    {"seed": 7}      ->  {"observation": [...], "picture": {...}}
    {"action": 1}    ->  {"observation": [...], "picture": {...}, "reward": 1.0, "done": false}

The process confines itself before it reads the first line, and may read only these modules besides installed packages.
An exception is the response {"error": "..."} and ends the process, as do the end of stdin and the end of its parent.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import gymnasium

from serving.client.actions import element
from serving.client.core import to_json
from serving.errors import ServingError
from serving.play.scenes import scene_of
from serving.policy import environments
from serving.policy.environments.errors import EnvironmentMisbehaved
from serving.policy.spaces import Json, space_to_json
from serving.processes import NICENESS, die_with_parent
from serving.sandbox.python_files import gpu_devices
from serving.sandbox.sandbox import Sandbox

MAX_STEPS_PER_S = 20.0
"""Fast enough to watch, and a small load for a replica that also answers other requests."""

MEMORY_BYTES = 2 << 30
FILE_BYTES = 64 << 20
CPU_S = 300.0
"""What the environment of a session may use; a session lasts as long."""

MAX_LISTED = 64
"""Larger arrays are sent in base64; the page shows only their shape."""


class SteppedEnvironment:
    """An environment that is reset and stepped by requests, and drawn after each."""

    def __init__(self, described: dict[str, Json]) -> None:
        self._environment = _make(described)
        self._action_space = space_to_json(self._environment.action_space)
        self._environment.reset(seed=0)  # Environments can only be rendered after a reset.
        self._scene = scene_of(self._environment)

    def describe(self) -> dict[str, Json]:
        """Return the scene and the number of steps per second; environments that draw frames can limit it."""
        scene = self._scene.describe()
        wanted = self._environment.metadata.get("render_fps") or MAX_STEPS_PER_S
        steps_per_s = MAX_STEPS_PER_S if scene["kind"] != "frames" else min(MAX_STEPS_PER_S, float(wanted))
        return {"scene": scene, "steps_per_s": steps_per_s}

    def reset(self, seed: int) -> dict[str, Json]:
        """Start an episode and return its first observation and picture."""
        observation, _ = self._environment.reset(seed=seed)
        return self._drawn(observation)

    def step(self, action: Json) -> dict[str, Json]:
        """Take one step with an action of the server, and return the observation, the picture and the reward."""
        observation, reward, terminated, truncated, _ = self._environment.step(element(self._action_space, action))
        return {**self._drawn(observation), "reward": float(reward), "done": bool(terminated or truncated)}

    def _drawn(self, observation: Any) -> dict[str, Json]:
        return {"observation": to_json(observation, MAX_LISTED), "picture": self._scene.picture()}


def _make(described: dict[str, Json]) -> gymnasium.Env[Any, Any]:
    """Make an environment that renders frames, or does not render if it cannot."""
    arguments = {
        "env_id": described["id"],
        "kwargs": described["kwargs"],
        "wrappers": described.get("wrappers", ()),
        "max_episode_steps": described.get("max_episode_steps", environments.MAX_EPISODE_STEPS),
    }
    with contextlib.suppress(ServingError):
        return environments.make(**arguments, render_mode="rgb_array")
    return environments.make(**arguments)


def responses(lines: TextIO) -> Iterator[dict[str, Json]]:
    """Yield the response to each line; the first line describes the environment. Stops after an error."""
    try:
        environment = SteppedEnvironment(json.loads(next(lines))["environment"])
        yield environment.describe()
        for line in lines:
            request = json.loads(line)
            yield environment.reset(request["seed"]) if "seed" in request else environment.step(request["action"])
    except Exception as error:  # noqa: BLE001 - an environment can raise any exception
        yield {"error": _reason(error)}


def _reason(error: Exception) -> str:
    """Return what the viewer reads after "the environment failed": no paths of this machine."""
    if isinstance(error, EnvironmentMisbehaved):
        return error.reason
    return str(error) if isinstance(error, ServingError) else f"{type(error).__name__}: {error}"


def main(modules: tuple[str, ...]) -> None:
    """Answer the requests of stdin on stdout until stdin ends. TMPDIR is the only directory to write in."""
    die_with_parent()
    os.nice(NICENESS)
    Sandbox(
        memory_bytes=MEMORY_BYTES,
        file_bytes=FILE_BYTES,
        cpu_s=CPU_S,
        writable=Path(tempfile.gettempdir()),
        modules=modules,
        gpu=any(device.exists() for device in gpu_devices()),
    ).enter()
    # Environments may print to stdout, so the responses use a copy of it.
    with os.fdopen(os.dup(1), "w") as output:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        for response in responses(sys.stdin):
            print(json.dumps(response), file=output, flush=True)
    os._exit(0)  # An environment's windows and threads could delay a regular exit.


if __name__ == "__main__":
    main(tuple(sys.argv[1:]))
