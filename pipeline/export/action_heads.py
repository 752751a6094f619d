"""Maps the inputs of an action distribution to actions in the environment's own space, as part of a graph.

The heads compute what RLlib's distributions, its module-to-env connectors and `pipeline.environments.action_adapters`
compute together.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import Space, spaces

from pipeline.environments.action_adapters import adapted_leaf, is_integer, is_native
from serving.policy.noise import NoisePart
from serving.policy.spaces import LeafSpace, leaves


class Heads(torch.nn.Module):
    """Maps distribution inputs and noise to the action, leaf by leaf, and its log-probability.

    If the noise is zero, the action is the most probable one. Choices add standard Gumbel noise to the logits, which
    makes their argmax a sample (Gumbel, 1954). Gaussians add standard normal noise times their standard deviation.

    Attributes:
        noise: The distributions of the noise's columns, in order.
        input_sizes: The number of distribution inputs of each leaf.
    """

    def __init__(self, action_space: Space[Any]) -> None:
        super().__init__()
        leaf_spaces = [leaf.space for leaf in leaves(action_space)]
        heads = [_Choices(space) if is_choice(space) else _Gaussian(space) for space in leaf_spaces]
        self.noise: list[NoisePart] = [head.noise for head in heads]
        self.input_sizes: list[int] = [head.input_size for head in heads]
        self._heads = torch.nn.ModuleList(heads)

    @property
    def noise_size(self) -> int:
        """The number of columns of the noise."""
        return sum(each.size for each in self.noise)

    def forward(self, inputs: torch.Tensor, noise: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Compute the actions of a batch.

        Args:
            inputs: `[batch, sum(input_sizes)]` float32.
            noise: `[batch, noise_size]` float32; a batch size of 1 is broadcast.

        Returns:
            The actions, `[batch, *leaf.shape]` for each leaf, and their log-probabilities, `[batch]`.
        """
        noises = _split(noise, [each.size for each in self.noise])
        parts = zip(self._heads, _split(inputs, self.input_sizes), noises, strict=True)
        actions, logps = zip(*(head(*part) for head, *part in parts), strict=True)
        return list(actions), sum(logps[1:], start=logps[0])


def _split(tensor: torch.Tensor, sizes: Sequence[int]) -> Sequence[torch.Tensor]:
    return (tensor,) if len(sizes) == 1 else torch.split(tensor, list(sizes), dim=-1)


class _Choices(torch.nn.Module):
    """Independent categorical distributions: the head of a leaf whose elements are chosen from finitely many values."""

    _start: torch.Tensor

    def __init__(self, space: LeafSpace) -> None:
        super().__init__()
        self._sizes = choice_sizes(space)
        self.noise, self.input_size = NoisePart("gumbel", sum(self._sizes)), sum(self._sizes)
        self._is_native = is_native(space)
        self._shape = tuple(space.shape or ())
        if isinstance(space, spaces.Box):
            start = torch.as_tensor(space.low)
        elif isinstance(space, spaces.MultiBinary):
            start = torch.zeros((), dtype=torch.int8)
        else:
            start = torch.as_tensor(space.start)
        self.register_buffer("_start", start, persistent=False)

    def forward(self, logits: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parts = zip(_split(logits, self._sizes), _split(noise, self._sizes), strict=True)
        choices, logps = zip(*(_choose(*part) for part in parts), strict=True)
        chosen = torch.stack(choices, dim=-1) if self._shape else choices[0]
        if not self._is_native:  # The policy's choices are counted from 0, and in one dimension.
            shaped = chosen.reshape(-1, *self._shape) if self._shape else chosen
            chosen = shaped.to(self._start.dtype) + self._start
        return chosen, sum(logps[1:], start=logps[0])


def _choose(logits: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    chosen = (logits + noise).argmax(dim=-1)
    logp = logits.log_softmax(dim=-1).gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
    return chosen, logp


class _Gaussian(torch.nn.Module):
    """A diagonal Gaussian: the head of a Box of floats."""

    def __init__(self, space: LeafSpace) -> None:
        super().__init__()
        assert isinstance(space, spaces.Box)  # noqa: S101  # all other leaves are choices
        size = math.prod(space.shape)
        self.noise, self.input_size = NoisePart("normal", size), 2 * size
        self._to_environment: torch.nn.Module
        if not is_native(space):
            self._to_environment = _Scale(space)
        elif space.is_bounded():
            self._to_environment = _Unsquash(space)
        else:
            self._to_environment = torch.nn.Identity()

    def forward(self, inputs: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_std = inputs.chunk(2, dim=-1)
        action = mean + log_std.exp() * noise
        # RLlib's log-probability, too, is that of the action before it is scaled and clipped.
        logp = (-0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(dim=-1)
        return self._to_environment(action), logp


class _Unsquash(torch.nn.Module):
    """Scales [-1, 1] to the bounds of the space and clips, as RLlib's `unsquash_action` does."""

    _low: torch.Tensor
    _high: torch.Tensor

    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        self.register_buffer("_low", torch.from_numpy(space.low))
        self.register_buffer("_high", torch.from_numpy(space.high))

    def forward(self, action: torch.Tensor) -> torch.Tensor:
        return (self._low + (action + 1.0) * (self._high - self._low) / 2.0).clamp(self._low, self._high)


class _Scale(torch.nn.Module):
    """Scales elements with two bounds in float64, clips to each bound, and returns the space's shape and dtype."""

    _bounded: torch.Tensor
    _low: torch.Tensor
    _high: torch.Tensor

    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        self._shape = space.shape
        self._dtype = torch.as_tensor(space.low).dtype
        self.register_buffer("_bounded", torch.as_tensor(space.bounded_below & space.bounded_above))
        self.register_buffer("_low", torch.as_tensor(space.low).double())
        self.register_buffer("_high", torch.as_tensor(space.high).double())

    def forward(self, action: torch.Tensor) -> torch.Tensor:
        shaped = (action.reshape(-1, *self._shape) if self._shape else action.squeeze(-1)).double()
        low, high = (torch.where(self._bounded, bound, 0.0) for bound in (self._low, self._high))
        scaled = torch.where(self._bounded, low + (shaped + 1.0) * (high - low) / 2.0, shaped)
        return scaled.clamp(self._low, self._high).to(self._dtype)


def is_choice(space: LeafSpace) -> bool:
    """Return whether the elements of a leaf are chosen from finitely many values."""
    return not isinstance(space, spaces.Box) or is_integer(space)


def choice_sizes(space: LeafSpace) -> list[int]:
    """Return the number of values of each choice of a leaf for which `is_choice` holds."""
    trained = adapted_leaf(space)
    if isinstance(trained, spaces.Discrete):
        return [int(trained.n)]
    assert isinstance(trained, spaces.MultiDiscrete)  # noqa: S101  # a choice is adapted to one of these two
    return [int(size) for size in trained.nvec]
