"""Tells which observations are images, which a policy convolves."""

from typing import TypeGuard

from gymnasium import spaces

from serving.policy.spaces import LeafSpace

#: A three-dimensional array is an image if height and width are at least 8, and there are at most 16 channels.
_MIN_IMAGE_SIZE = 8
_MAX_CHANNELS = 16


def is_image(space: LeafSpace) -> TypeGuard[spaces.Box]:
    """Return whether a leaf is an image, which is convolved: height x width x channels, or channels first."""
    if not isinstance(space, spaces.Box) or len(space.shape) != len("HWC"):
        return False
    height, width, channels = image_shape(space)
    return min(height, width) >= _MIN_IMAGE_SIZE and channels <= _MAX_CHANNELS


def image_shape(space: spaces.Box) -> tuple[int, int, int]:
    """Return the shape of an image with its channels last."""
    first, second, third = space.shape
    return (second, third, first) if has_channels_first(space) else (first, second, third)


def has_channels_first(space: spaces.Box) -> bool:
    """Return whether the first dimension of an image is that of its channels."""
    return space.shape[0] < min(space.shape[1:])
