"""Adapts a policy to episodes: from observations of the environment to its actions, with recurrent state."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from gymnasium import Space
from numpy.typing import NDArray

from pipeline.environments.nested_spaces import Batch, stack, unstack
from serving.policy.policy import Policy
from serving.policy.tensors import ACTION, OBSERVATIONS, STATE_IN, STATE_OUT

if TYPE_CHECKING:  # it imports torch and RLlib, which commands on registered versions do not need
    from pipeline.export.exportable_policy import ExportablePolicy

State = Mapping[str, NDArray[Any]]
"""The recurrent state of one episode, by name; empty if the policy is not recurrent."""


@dataclass(frozen=True)
class Player:
    """A greedy policy that acts in several episodes at once.

    Attributes:
        run: Computes the outputs of the graph from its inputs, by name; the input `noise` is optional.
        state_shapes: The shapes of the recurrent state's arrays, by name.
    """

    observation_space: Space[Any]
    action_space: Space[Any]
    run: Callable[[Batch], Batch]
    state_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def served(cls, policy: Policy) -> Self:
        """Return a player of a policy as serving loads it."""
        interface = policy.interface
        run = partial(policy.run, outputs=interface.required_outputs)
        return cls(policy.observation_space, policy.action_space, run, interface.state_shapes)

    @classmethod
    def exportable(cls, policy: "ExportablePolicy") -> Self:
        """Return a player of a policy in torch."""
        return cls(policy.observation_space, policy.action_space, policy.run, policy.state.shapes)

    def initial_state(self) -> State:
        """Return the state before the first step of an episode: zeros."""
        return {name: np.zeros(shape, np.float32) for name, shape in self.state_shapes.items()}

    def act(self, observations: Sequence[Any], states: Sequence[State]) -> tuple[list[Any], list[State]]:
        """Compute one step from the observation and the recurrent state of each episode.

        Returns:
            Elements of the action space, and the recurrent state of each episode after the step.
        """
        feeds = stack(self.observation_space, observations, OBSERVATIONS)
        feeds |= {f"{STATE_IN}{name}": np.stack([state[name] for state in states]) for name in self.state_shapes}
        outputs = self.run(feeds)
        after: list[State] = [
            {name: outputs[f"{STATE_OUT}{name}"][index] for name in self.state_shapes} for index in range(len(states))
        ]
        return unstack(self.action_space, outputs, ACTION), after
