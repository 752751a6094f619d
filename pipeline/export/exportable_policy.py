"""A policy in torch that computes in one function what RLlib computes in a module and its connectors."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from numpy.typing import NDArray
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch import TorchRLModule

from pipeline.environments.nested_spaces import Batch, nest
from pipeline.export.action_heads import Heads
from pipeline.export.recurrent_state import StateLayout
from serving.policy.spaces import leaves
from serving.policy.tensors import (
    ACTION,
    ACTION_DIST_INPUTS,
    ACTION_LOGP,
    NOISE,
    OBSERVATIONS,
    STATE_IN,
    STATE_OUT,
    VALUES,
)


class ExportablePolicy(torch.nn.Module):
    """Maps observations to actions in the environment's own space, and to the distribution that they come from.

    It computes the module's `forward_inference` and RLlib's connectors. The action is greedy if the noise is zero, and
    a sample of the distribution if the noise is drawn as `heads.noise` describes.

    Args:
        module: The network.
        observation_space, action_space: The environment's.
        observation_filter: Applied to the observations first, or None.
        with_values: Whether it returns value estimates too; the module needs its critic for them.
    """

    def __init__(
        self,
        module: TorchRLModule,
        observation_space: Space[Any],
        action_space: Space[Any],
        observation_filter: torch.nn.Module | None = None,
        *,
        with_values: bool = False,
    ) -> None:
        super().__init__()
        self._module = module
        self._filter = observation_filter
        self._with_values = with_values
        self.observation_space = observation_space
        self.action_space = action_space
        self.heads = Heads(action_space)
        self.state = StateLayout.of(module, with_critic=with_values)

    @functools.cached_property
    def input_names(self) -> list[str]:
        """The names of the inputs, in the order of `forward`."""
        observed = [leaf.tensor(OBSERVATIONS) for leaf in leaves(self.observation_space)]
        return [*observed, NOISE, *(f"{STATE_IN}{name}" for name in self.state.shapes)]

    @functools.cached_property
    def output_names(self) -> list[str]:
        """The names of the outputs, in the order of `forward`."""
        acted = [leaf.tensor(ACTION) for leaf in leaves(self.action_space)]
        states = [f"{STATE_OUT}{name}" for name in self.state.shapes]
        values = [VALUES] if self._with_values else []
        return [*acted, ACTION_DIST_INPUTS, ACTION_LOGP, *values, *states]

    def forward(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Compute the tensors of `output_names` from those of `input_names`, each `[batch, ...]`."""
        count = len(leaves(self.observation_space))
        batch = self._module_batch(inputs[:count], inputs[count + 1 :])
        outputs = self._module.forward_inference(batch)
        dist_inputs = outputs[Columns.ACTION_DIST_INPUTS]
        if self.state:
            dist_inputs = dist_inputs.squeeze(1)
        actions, logp = self.heads(dist_inputs, inputs[count])
        values = [self._values(batch)] if self._with_values else []
        return (*actions, dist_inputs, logp, *values, *self.state.flatten(outputs.get(Columns.STATE_OUT)))

    def _module_batch(self, observed: Sequence[torch.Tensor], states: Sequence[torch.Tensor]) -> dict[str, Any]:
        if self._filter is not None:
            observed = [self._filter(observed[0])]
        # RLlib's connectors convert float64 to float32.
        tensors = [each.float() if each.dtype == torch.float64 else each for each in observed]
        if not self.state:
            return {Columns.OBS: nest(self.observation_space, tensors)}
        steps = [each.unsqueeze(1) for each in tensors]
        return {Columns.OBS: nest(self.observation_space, steps), Columns.STATE_IN: self.state.nest(states)}

    def _values(self, batch: dict[str, Any]) -> torch.Tensor:
        values: torch.Tensor = self._module.compute_values(batch)
        return values.squeeze(1) if self.state else values

    def run(self, feeds: Batch) -> dict[str, NDArray[Any]]:
        """Return all outputs by name for inputs by name, each `[batch, ...]`; noise and state default to zeros."""
        batch = len(next(iter(feeds.values())))
        defaults: dict[str, tuple[int, ...]] = {NOISE: (self.heads.noise_size,)}
        defaults |= {f"{STATE_IN}{name}": shape for name, shape in self.state.shapes.items()}
        arrays = [
            feeds[name] if name in feeds else np.zeros((batch, *defaults[name]), np.float32)
            for name in self.input_names
        ]
        with torch.inference_mode():
            outputs = self.forward([torch.from_numpy(np.ascontiguousarray(each)) for each in arrays])
        return dict(zip(self.output_names, map(np.asarray, outputs), strict=True))
