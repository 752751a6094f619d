"""From the inputs of an action distribution to actions in the environment's own space, as part of a graph.

Computes what RLlib's distributions and module-to-env connectors, and `pipeline.environments.action_adapters`, compute
one by one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import Space, spaces

from pipeline.environments.action_adapters import adapted_leaf, is_integer, is_native
from serving.policy.spaces import LeafSpace, leaves


@dataclass(frozen=True)
class Noise:
    """What a head samples with: `size` independent draws from a distribution, `normal` or `gumbel` (both standard)."""

    distribution: str
    size: int


class Heads(torch.nn.Module):
    """Distribution inputs and noise -> actions, leaf by leaf, and their log-probability.

    Without noise (zeros), actions are the most probable ones. Choices add standard Gumbel noise to the logits (Gumbel,
    1954: the argmax is then a sample); Gaussians add standard normal noise times their standard deviation.

    Attributes:
        noise: What the noise consists of, in order.
        input_sizes: How many of the distribution inputs each leaf takes.
    """

    def __init__(self, action_space: Space[Any]) -> None:
        super().__init__()
        heads = [_head(leaf.space) for leaf in leaves(action_space)]
        self.noise: list[Noise] = [head.noise for head in heads]
        self.input_sizes: list[int] = [head.input_size for head in heads]
        self._heads = torch.nn.ModuleList(heads)

    @property
    def noise_size(self) -> int:
        """The sum of the sizes."""
        return sum(each.size for each in self.noise)

    def forward(self, inputs: torch.Tensor, noise: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """`[batch, k]` and `[batch, noise_size]` -> actions `[batch, *leaf.shape]`, log-probabilities `[batch]`."""
        parts = zip(
            self._heads,
            _split(inputs, self.input_sizes),
            _split(noise, [each.size for each in self.noise]),
            strict=True,
        )
        actions, logps = zip(*(head(part, its_noise) for head, part, its_noise in parts), strict=True)
        return list(actions), sum(logps[1:], start=logps[0])


def _split(tensor: torch.Tensor, sizes: Sequence[int]) -> Sequence[torch.Tensor]:
    return (tensor,) if len(sizes) == 1 else torch.split(tensor, list(sizes), dim=-1)


def _head(space: LeafSpace) -> "_Choice | _Choices | _Gaussian":
    trained = adapted_leaf(space)
    if isinstance(trained, spaces.Discrete):
        return _Choice(int(trained.n), space)
    if isinstance(trained, spaces.MultiDiscrete):
        return _Choices([int(size) for size in trained.nvec], space)
    return _Gaussian(space, math.prod(trained.shape or ()))


class _Choice(torch.nn.Module):
    """Categorical."""

    def __init__(self, size: int, space: LeafSpace) -> None:
        super().__init__()
        self.noise, self.input_size = Noise("gumbel", size), size
        self._to_environment = _Integers(space)

    def forward(self, logits: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, logp = _choose(logits, noise)
        return self._to_environment(chosen), logp


class _Choices(torch.nn.Module):
    """Independent categoricals side by side."""

    def __init__(self, sizes: list[int], space: LeafSpace) -> None:
        super().__init__()
        self.noise, self.input_size = Noise("gumbel", sum(sizes)), sum(sizes)
        self._sizes = sizes
        self._to_environment = _Integers(space)

    def forward(self, logits: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parts = zip(_split(logits, self._sizes), _split(noise, self._sizes), strict=True)
        chosen, logps = zip(*(_choose(*part) for part in parts), strict=True)
        return self._to_environment(torch.stack(chosen, dim=-1)), sum(logps[1:], start=logps[0])


def _choose(logits: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    chosen = (logits + noise).argmax(dim=-1)
    logp = logits.log_softmax(dim=-1).gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
    return chosen, logp


class _Integers(torch.nn.Module):
    """Choices counted from 0 -> a leaf of integers."""

    _start: torch.Tensor

    def __init__(self, space: LeafSpace) -> None:
        super().__init__()
        self._is_native = is_native(space)
        self._shape = tuple(space.shape or ())
        if isinstance(space, spaces.Box):
            start = torch.as_tensor(space.low)
        elif isinstance(space, spaces.MultiBinary):
            start = torch.zeros((), dtype=torch.int8)
        else:
            start = torch.as_tensor(space.start)
        self.register_buffer("_start", start, persistent=False)

    def forward(self, chosen: torch.Tensor) -> torch.Tensor:
        if self._is_native:
            return chosen
        shaped = chosen if not self._shape else chosen.reshape(-1, *self._shape)
        return shaped.to(self._start.dtype) + self._start


class _Gaussian(torch.nn.Module):
    """Diagonal Gaussian."""

    def __init__(self, space: LeafSpace, size: int) -> None:
        super().__init__()
        self.noise, self.input_size = Noise("normal", size), 2 * size
        assert isinstance(space, spaces.Box)  # noqa: S101  # nothing else is adapted to a Box
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
        # The density of what was sampled, before it is scaled and clipped: as RLlib has it.
        logp = (-0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(dim=-1)
        return self._to_environment(action), logp


class _Unsquash(torch.nn.Module):
    """From RLlib's [-1, 1] to the bounds of the space (as `unsquash_action` does)."""

    _low: torch.Tensor
    _high: torch.Tensor

    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        self.register_buffer("_low", torch.from_numpy(space.low))
        self.register_buffer("_high", torch.from_numpy(space.high))

    def forward(self, action: torch.Tensor) -> torch.Tensor:
        return (self._low + (action + 1.0) * (self._high - self._low) / 2.0).clamp(self._low, self._high)


class _Scale(torch.nn.Module):
    """The same in float64, where there are two bounds; to what bounds there are, in the space's own shape and dtype."""

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
    """Whether actions of a leaf are chosen among finitely many."""
    return not isinstance(space, spaces.Box) or is_integer(space)


def choice_sizes(space: LeafSpace) -> list[int]:
    """How many there are, of each choice that a leaf of choices consists of."""
    trained = adapted_leaf(space)
    if isinstance(trained, spaces.Discrete):
        return [int(trained.n)]
    assert isinstance(trained, spaces.MultiDiscrete)  # noqa: S101  # nothing else has choices
    return [int(size) for size in trained.nvec]
