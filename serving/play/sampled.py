"""What `/play` shows of a policy whose environment may not be imported: its answers to random observations."""

import shlex
from copy import deepcopy
from typing import Any

from gymnasium import Space

from serving.client.core import to_json
from serving.play.environment import MAX_LISTED
from serving.policy.spaces import Json

STEPS_PER_S = 4.0
STEPS = 100
"""The steps after which the page begins another episode."""


class SampledObservations:
    """Answers the requests of a session as an environment's process does, with elements of the observation space."""

    def __init__(self, space: Space[Any], env_id: str, modules: tuple[str, ...]) -> None:
        self._space = deepcopy(space)  # a session has its own random stream
        option = shlex.quote(",".join(modules))
        self._notice = (
            f"{env_id} is not shown, because the server may not import {', '.join(modules)}. To allow it: "
            f"--environment-modules {option}. The numbers are random observations and the policy's answers."
        )
        self._step = 0

    async def request(self, message: dict[str, Json]) -> dict[str, Json]:
        """Return the response to one message."""
        if "environment" in message:
            return {"scene": {"kind": "numbers", "notice": self._notice}, "steps_per_s": STEPS_PER_S}
        if "seed" in message:
            self._space.seed(message["seed"])
            self._step = 0
            return self._sampled()
        self._step += 1
        return {**self._sampled(), "reward": 0.0, "done": self._step >= STEPS}

    def close(self) -> None:
        """Do nothing: there is no process."""

    def _sampled(self) -> dict[str, Json]:
        return {"observation": to_json(self._space.sample(), MAX_LISTED), "picture": None}
