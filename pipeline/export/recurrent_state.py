"""Maps the recurrent state of an RLModule, which is a nested dict, to named arrays and back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from ray.rllib.core.models.base import CRITIC
from ray.rllib.core.rl_module.torch import TorchRLModule


@dataclass(frozen=True)
class StateLayout:
    """The arrays of a policy's state by dotted name, such as `actor.h`; empty if the policy is not recurrent.

    Attributes:
        shapes: The shape, without the batch dimension, of each array that is passed from step to step.
        constant: The shape of each array that stays zero because no output depends on it: the critic's.
    """

    shapes: Mapping[str, tuple[int, ...]]
    constant: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, module: TorchRLModule, *, with_critic: bool) -> Self:
        """Return the layout of a module's state. Without the critic, the critic's own arrays are constant."""
        if not module.is_stateful():
            return cls({}, {})
        found = {name: tuple(value.shape) for name, value in _walk(module.get_initial_state())}
        constant = {} if with_critic else {name: found[name] for name in found if name.split(".")[0] == CRITIC}
        return cls({name: found[name] for name in found if name not in constant}, constant)

    def __bool__(self) -> bool:
        return bool(self.shapes)

    def nest(self, states: Sequence[torch.Tensor]) -> dict[str, Any]:
        """Return RLlib's nested dict for the arrays in `shapes`, `[batch, *shape]` each, in their order."""
        named = dict(zip(self.shapes, states, strict=True))
        named |= {name: states[0].new_zeros((states[0].shape[0], *shape)) for name, shape in self.constant.items()}
        nested: dict[str, Any] = {}
        for name, value in named.items():
            *parents, last = name.split(".")
            level = nested
            for parent in parents:
                level = level.setdefault(parent, {})
            level[last] = value
        return nested

    def flatten(self, nested: Any) -> list[torch.Tensor]:
        """Return the arrays in `shapes`, in their order, from RLlib's nested dict."""
        named = dict(_walk(nested)) if self.shapes else {}
        return [named[name] for name in self.shapes]


def _walk(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in sorted(nested.items()):
        if isinstance(value, Mapping):
            yield from _walk(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
