"""Policies as episodes see them: observations of the environment in, actions that it takes out, state carried along."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from gymnasium import Space
from numpy.typing import NDArray

from pipeline.environments.nested_spaces import Batch, stack, unstack
from pipeline.tensors import STATE_IN, STATE_OUT
from serving.policy.policy import Policy
from serving.policy.spaces import ACTION, OBSERVATIONS

State = Mapping[str, NDArray[Any]]
"""The recurrent state of one episode, by name; empty if the policy is not recurrent."""


@dataclass(frozen=True)
class Player:
    """A greedy policy.

    Attributes:
        observation_space: Of the environment.
        action_space: Of the environment.
        run: Inputs of the graph -> outputs, by name; noise need not be given.
        state_shapes: Of the arrays of the state, by name.
    """

    observation_space: Space[Any]
    action_space: Space[Any]
    run: Callable[[Batch], Batch]
    state_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def served(cls, policy: Policy) -> Self:
        """A policy as serving has it."""
        interface = policy.interface

        def run(feeds: Batch) -> Batch:
            return policy.run(dict(feeds), interface.required_outputs)

        return cls(policy.observation_space, policy.action_space, run, interface.state_shapes)

    def initial_state(self) -> State:
        """Of an episode's first step."""
        return {name: np.zeros(shape, np.float32) for name, shape in self.state_shapes.items()}

    def act(self, observations: Sequence[Any], states: Sequence[State]) -> tuple[list[Any], list[State]]:
        """One step of several episodes.

        Args:
            observations: As the environments gave them.
            states: Of the episodes, before the step.

        Returns:
            The actions, as the environments take them, and the states after the step.
        """
        feeds = stack(self.observation_space, observations, OBSERVATIONS)
        feeds |= {
            f"{STATE_IN}{name}": np.stack([np.asarray(state[name]) for state in states]) for name in self.state_shapes
        }
        outputs = self.run(feeds)
        after = [
            {name: outputs[f"{STATE_OUT}{name}"][index] for name in self.state_shapes} for index in range(len(states))
        ]
        return unstack(self.action_space, outputs, ACTION), list(after)
