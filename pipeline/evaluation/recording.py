"""Records an episode as an animated GIF, which MLflow's UI plays."""

import contextlib
import os
from pathlib import Path

import gymnasium
import numpy as np
from PIL import Image

from pipeline.environments.make import Environment
from pipeline.evaluation.player import Player
from serving.policy.bundle import Bundle
from serving.policy.policy import Policy

#: 10 s in the environment's own time, at a size that a browser loads at once.
_FRAMES = 125
_FRAMES_PER_S = 12.5
_WIDTH = 300


def record(bundle: Path, environment: Environment, seed: int, file: Path) -> bool:
    """Play a greedy episode of the policy in a bundle's directory, and write its first 10 s as a GIF.

    Returns:
        False, with nothing written, if the environment renders no images or lacks a package for it.
    """
    # pygame renders in memory; without these it opens a display and a sound device.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if "rgb_array" not in environment.render_modes:
        return False
    try:
        frames = _frames(Player.served(Policy.load(Bundle.read(bundle))), environment, seed)
    except (gymnasium.error.Error, ImportError):
        return False
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=1000 / _FRAMES_PER_S, loop=0)
    return True


def _frames(player: Player, environment: Environment, seed: int) -> list[Image.Image]:
    with contextlib.closing(environment.make(render_mode="rgb_array")) as made:
        stride = max(1, round(made.metadata.get("render_fps", 30) / _FRAMES_PER_S))
        observation, _ = made.reset(seed=seed)
        states = [player.initial_state()]
        frames = [_image(made.render())]
        for step in range(1, stride * _FRAMES):
            (action,), states = player.act([observation], states)
            observation, _, terminated, truncated, _ = made.step(action)
            if step % stride == 0:
                frames.append(_image(made.render()))
            if terminated or truncated:
                break
        return frames


def _image(pixels: object) -> Image.Image:
    """Return a small image of 64 colours."""
    image = Image.fromarray(np.asarray(pixels, np.uint8))
    small = image.resize((_WIDTH, round(image.height * _WIDTH / image.width)), Image.Resampling.BOX)
    return small.quantize(64, method=Image.Quantize.FASTOCTREE)
