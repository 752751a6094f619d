"""What the page draws of an environment: CartPole's state, rendered frames, or nothing."""

import base64
import io
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from serving.policy import environments
from serving.policy.errors import EnvironmentNotDrawn
from serving.policy.spaces import Json

MAX_FRAME = (480, 360)
"""Width and height in pixels to which larger frames are reduced."""

JPEG_QUALITY = 85


class Scene:
    """Draws nothing, for environments that render no frames; the page shows the numbers of the observation."""

    def describe(self) -> dict[str, Json]:
        """Return the kind of the scene and its constants."""
        return {"kind": "numbers"}

    def picture(self) -> Json:
        """Return what the page draws of the current step."""
        return None


class CartPole(Scene):
    """A cart and a pole, from the state of the unwrapped environment, because wrappers can hide parts of it."""

    def __init__(self, cartpole: Any) -> None:
        self._cartpole = cartpole

    def describe(self) -> dict[str, Json]:
        """Return the bounds of an episode and the length of the pole, in metres and radians."""
        return {
            "kind": "cartpole",
            "max_position": float(self._cartpole.x_threshold),
            "max_angle": float(self._cartpole.theta_threshold_radians),
            "pole_length": 2 * float(self._cartpole.length),  # The environment's `length` is half of the pole's.
        }

    def picture(self) -> Json:
        """Return the cart's position and the pole's angle."""
        position, _, angle, _ = map(float, self._cartpole.state)
        return {"position": position, "angle": angle}


class Frames(Scene):
    """The frames that the environment renders, as JPEG."""

    def __init__(self, environment: gymnasium.Env[Any, Any], first: NDArray[np.uint8]) -> None:
        self._environment = environment
        self._height, self._width = first.shape[:2]

    def describe(self) -> dict[str, Json]:
        """Return the original size of a frame, in pixels."""
        return {"kind": "frames", "width": self._width, "height": self._height}

    def picture(self) -> Json:
        """Return the current frame in base64."""
        frame = _frame(self._environment)
        return None if frame is None else {"jpeg": base64.b64encode(_jpeg(frame)).decode()}


def scene_of(environment: gymnasium.Env[Any, Any]) -> Scene:
    """Return the scene of an environment: CartPole's, else frames, else none."""
    innermost: Any = environment.unwrapped
    if hasattr(innermost, "gym_env"):  # shimmy's adapter for the package gym
        innermost = innermost.gym_env.unwrapped
    if {"x_threshold", "theta_threshold_radians", "length"} <= set(dir(innermost)):
        return CartPole(innermost)
    frame = _frame(environment)
    return Scene() if frame is None else Frames(environment, frame)


def _frame(environment: gymnasium.Env[Any, Any]) -> NDArray[np.uint8] | None:
    """Return a frame `[height, width, 3]`, or None if the environment renders none."""
    if environment.render_mode != "rgb_array":
        return None
    try:
        return environments.draw(environment)
    except EnvironmentNotDrawn:
        return None


def _jpeg(frame: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    image, written = Image.fromarray(frame), io.BytesIO()
    image.thumbnail(MAX_FRAME)
    image.save(written, "JPEG", quality=JPEG_QUALITY)
    return written.getvalue()
