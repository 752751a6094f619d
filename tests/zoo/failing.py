"""Environments that raise exceptions."""

import os
import socket
import sys
from typing import Any

from gymnasium import spaces

from tests.zoo.base import E


class StepRaises(E):
    """`step` raises in the seventh step of each episode."""

    def step(self, action: Any) -> Any:
        if self.episode_steps == 6:
            raise RuntimeError("the motor is stuck")
        return super().step(action)


class StepRaisesLater(E):
    """`step` raises in the seventh step of the twentieth episode of an environment."""

    episodes = 0

    def reset(self, **arguments: Any) -> Any:
        self.episodes += 1
        return super().reset(**arguments)

    def step(self, action: Any) -> Any:
        if self.episodes == 20 and self.episode_steps == 6:
            raise RuntimeError("the motor is stuck")
        return super().step(action)


class StepExitsLater(StepRaisesLater):
    """`step` ends the process in the seventh step of the twentieth episode, as a fault in native code would."""

    def step(self, action: Any) -> Any:
        try:
            return super().step(action)
        except RuntimeError:
            os._exit(3)


class ResetRaises(E):
    """`reset` raises."""

    def reset(self, **_: Any) -> Any:
        raise RuntimeError("the door is locked")


class ResetRaisesLater(E):
    """`reset` raises from its second call on."""

    is_reset = False

    def reset(self, **arguments: Any) -> Any:
        if self.is_reset:
            raise RuntimeError("the door is locked")
        self.is_reset = True
        return super().reset(**arguments)


class StepCallsExit(E):
    """`step` calls `sys.exit` in the seventh step of each episode."""

    def step(self, action: Any) -> Any:
        if self.episode_steps == 6:
            sys.exit(3)
        return super().step(action)


class CloseRaises(E):
    """`close` raises."""

    def close(self) -> None:
        raise RuntimeError("the door is stuck")


class OneOnly(E):
    """Binds a port, so that it can exist once only."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._socket = socket.create_server(("127.0.0.1", port))

    def close(self) -> None:
        self._socket.close()


class ArrayActions(E):
    """Computes with actions, which are arrays of a Box: a list raises TypeError."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(-1, 1, (1,))
        self.action_space = spaces.Box(-2, 2, (1,))

    def step(self, action: Any) -> Any:
        return super().step((action * 0.1).sum() > 0)

    def next_observation(self) -> Any:
        return super().next_observation()[:1]
