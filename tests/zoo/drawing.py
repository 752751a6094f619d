"""Environments that declare the render mode rgb_array, and draw otherwise or not at all."""

import os
import time
from typing import Any, ClassVar

import numpy as np

from tests.zoo.base import E

#: What a frame shows: a white cross on black, 30 high and 40 wide.
PICTURE = np.zeros((30, 40, 3), np.uint8)
PICTURE[10:20], PICTURE[:, 15:25] = 255, 255


class WithoutRenderMode(E):
    """Declares rgb_array, but its constructor takes no render mode."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 12.5}


class Drawn(E):
    """Draws as it should."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 12.5}

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def render(self) -> Any:
        return self.drawn(PICTURE)

    def drawn(self, picture: Any) -> Any:
        """Return the frame of a picture."""
        return picture


class RenderRaises(Drawn):
    """`render` raises."""

    def render(self) -> Any:
        raise RuntimeError("no display\nand a second line")


class RenderRaisesLater(Drawn):
    """`render` raises from the fifth step on."""

    def render(self) -> Any:
        if self.episode_steps >= 5:
            raise RuntimeError("no display")
        return super().render()


class RenderNone(Drawn):
    """`render` returns None."""

    def render(self) -> Any:
        return None


class RenderText(Drawn):
    """`render` returns a text."""

    def render(self) -> Any:
        return "+--+"


class RenderFlat(Drawn):
    """Frames have one dimension."""

    def drawn(self, picture: Any) -> Any:
        return picture.ravel()


class RenderEmpty(Drawn):
    """Frames have no pixels."""

    def drawn(self, picture: Any) -> Any:
        return picture[:0]


class RenderObjects(Drawn):
    """Frames are arrays of objects."""

    def drawn(self, picture: Any) -> Any:
        return picture.astype(object)


class RenderRagged(Drawn):
    """Frames are lists of rows of different lengths."""

    def drawn(self, picture: Any) -> Any:  # noqa: ARG002
        return [[[0, 0, 0]], [[0, 0, 0], [255, 255, 255]]]


class RenderKills(Drawn):
    """`render` ends the process, as a driver that crashes does."""

    def render(self) -> Any:
        os._exit(3)


class RenderSleeps(Drawn):
    """`render` sleeps for an hour."""

    def render(self) -> Any:
        time.sleep(3600)


class RenderFpsNone(Drawn):
    """Its number of frames per second is None."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": None}


class FrameList(Drawn):
    """`render` returns a list of frames, as the render mode rgb_array_list does."""

    def drawn(self, picture: Any) -> Any:
        return [np.zeros_like(picture), picture]


class NumberList(Drawn):
    """Frames are lists of numbers."""

    def drawn(self, picture: Any) -> Any:
        return picture.tolist()


class UnitFloats(Drawn):
    """Frames are floats from 0 to 1."""

    def drawn(self, picture: Any) -> Any:
        return picture.astype(np.float32) / 255


class ByteFloats(Drawn):
    """Frames are floats from 0 to 255."""

    def drawn(self, picture: Any) -> Any:
        return picture.astype(np.float64)


class NanFloats(Drawn):
    """Frames are floats from 0 to 1, of which black ones are NaN."""

    def drawn(self, picture: Any) -> Any:
        return np.where(picture == 0, np.nan, 1.0)


class Integers(Drawn):
    """Frames are int64."""

    def drawn(self, picture: Any) -> Any:
        return picture.astype(np.int64)


class Bits(Drawn):
    """Frames are bool."""

    def drawn(self, picture: Any) -> Any:
        return picture > 0


class Grayscale(Drawn):
    """Frames are gray, of two dimensions."""

    def drawn(self, picture: Any) -> Any:
        return picture[..., 0]


class GrayscaleChannel(Drawn):
    """Frames are gray, with one channel."""

    def drawn(self, picture: Any) -> Any:
        return picture[..., :1]


class Alpha(Drawn):
    """Frames have an alpha channel."""

    def drawn(self, picture: Any) -> Any:
        return np.concatenate([picture, np.full((30, 40, 1), 255, np.uint8)], axis=2)


class PlanarFrames(Drawn):
    """Frames have their channels first."""

    def drawn(self, picture: Any) -> Any:
        return picture.transpose(2, 0, 1)


class Mirrored(Drawn):
    """Frames are views with negative strides."""

    def drawn(self, picture: Any) -> Any:
        return picture[:, ::-1][:, ::-1][::-1][::-1]


class ChangingSize(Drawn):
    """Each frame is larger than the one before."""

    def drawn(self, picture: Any) -> Any:
        return picture.repeat(self.episode_steps + 1, axis=0)


class Wide(Drawn):
    """Frames are 2,000 times as wide as high."""

    def drawn(self, picture: Any) -> Any:
        return np.broadcast_to(picture[:1, :1], (1, 2000, 3))


#: Environments that draw PICTURE in another form.
OTHER_FORMS = [
    "Drawn", "FrameList", "NumberList", "UnitFloats", "ByteFloats", "NanFloats", "Integers", "Bits", "Grayscale",
    "GrayscaleChannel", "Alpha", "PlanarFrames", "Mirrored", "RenderFpsNone",
]  # fmt: skip

#: Environments that draw no image, and a part of the reason.
NOT_DRAWN = {
    "WithoutRenderMode": "render_mode",
    "RenderRaises": "render() raised RuntimeError: no display",
    "RenderRaisesLater": "render() raised RuntimeError: no display",
    "RenderNone": "render() returned NoneType, expected an array [height, width, 3] of uint8",
    "RenderText": "render() returned str, expected",
    "RenderFlat": "render() returned an array of shape (3600,) and dtype uint8, expected",
    "RenderEmpty": "render() returned an array of shape (0, 40, 3) and dtype uint8, expected",
    "RenderObjects": "render() returned an array of shape (30, 40, 3) and dtype object, expected",
    "RenderRagged": "render() returned list, expected",
}
