"""Records an episode as an animated GIF, which MLflow's UI plays."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.environments.make import Environment
from pipeline.evaluation.player import Player
from serving.errors import ExpectedError
from serving.policy.bundle import Bundle
from serving.policy.environments import draw
from serving.policy.policy import Policy

#: 10 s in the environment's own time, at a size that a browser loads at once.
_FRAMES = 125
_FRAMES_PER_S = 12.5
_WIDTH = 300
_MAX_HEIGHT = 900


@dataclass(frozen=True)
class Recording:
    """The result of `record`, which is true if the file was written.

    Attributes:
        is_written: Whether the file was written.
        reason: Why it was not, though the environment declares that it renders images; else None.
    """

    is_written: bool
    reason: str | None = None

    def __bool__(self) -> bool:
        return self.is_written


def record(bundle: Path, environment: Environment, seed: int, file: Path) -> Recording:
    """Play a greedy episode of the policy in a bundle's directory, and write its first 10 s as a GIF.

    No exception of the environment leaves this function, because a policy is registered without a recording, too.
    """
    # pygame renders in memory; without these it opens a display and a sound device.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if "rgb_array" not in environment.render_modes:
        return Recording(is_written=False)
    try:
        frames = _frames(Player.served(Policy.load(Bundle.read(bundle))), environment, seed)
        frames[0].save(file, save_all=True, append_images=frames[1:], duration=1000 / _FRAMES_PER_S, loop=0)
    except Exception as error:  # noqa: BLE001  # an environment may raise any exception
        text = next(iter(str(error).splitlines()), "")
        return Recording(
            is_written=False, reason=text if isinstance(error, ExpectedError) else f"{type(error).__name__}: {text}"
        )
    return Recording(is_written=True)


def _frames(player: Player, environment: Environment, seed: int) -> list[Image.Image]:
    with contextlib.closing(environment.make(render_mode="rgb_array")) as made:
        stride = max(1, round((made.metadata.get("render_fps") or 30) / _FRAMES_PER_S))
        observation, _ = made.reset(seed=seed)
        states = [player.initial_state()]
        frames = [_image(draw(made))]
        for step in range(1, stride * _FRAMES):
            (action,), states = player.act([observation], states)
            observation, _, terminated, truncated, _ = made.step(action)
            if step % stride == 0:
                frames.append(_image(draw(made), frames[0].size))
            if terminated or truncated:
                break
        return frames


def _image(pixels: NDArray[np.uint8], size: tuple[int, int] | None = None) -> Image.Image:
    """Return a small image of 64 colours, of a given size if the frames of an episode change theirs."""
    image = Image.fromarray(pixels)
    if size is None:
        size = _WIDTH, min(max(1, round(image.height * _WIDTH / image.width)), _MAX_HEIGHT)
    small = ImageOps.pad(image, size, Image.Resampling.BOX)
    return small.quantize(64, method=Image.Quantize.FASTOCTREE)
