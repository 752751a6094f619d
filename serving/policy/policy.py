"""A policy computes actions from observations with ONNX Runtime."""

import hashlib
from collections.abc import Iterable, Sequence
from time import perf_counter
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from serving.policy.bundle import GRAPH_FILE, Bundle, EnvironmentSpec, Interface, parse_policy_file
from serving.policy.environments import MAX_EPISODE_STEPS
from serving.policy.errors import BundleInvalid, PolicyFault
from serving.policy.execution import CPU, start_session
from serving.policy.graph_check import check_graph
from serving.policy.guards.finite import check_finite, checked_outputs
from serving.policy.guards.watchdog import Guard, guarded, unguarded
from serving.policy.spaces import LeafSpace, leaves
from serving.policy.tensors import ACTION, DETAILS, NOISE, OBSERVATIONS, STATE_OUT, Batch, Rows, Tensors


class Policy:
    """A policy that ONNX Runtime runs; greedy unless its input holds noise. Threads may share it."""

    def __init__(
        self,
        session: Any,
        interface: Interface,
        environment: EnvironmentSpec,
        digest: bytes,
        provider: str = CPU,
        guard: Guard | None = None,
    ) -> None:
        self.interface = interface
        self.observation_space, self.action_space = interface.observation_space, interface.action_space
        """The spaces of the observations, as the environment returns them, and of the actions, as it takes them."""
        self.environment = environment
        self.digest = digest
        """The sha256 of the bundle."""
        self.provider = provider
        """The execution provider that computes the actions: `cpu` or `cuda`."""
        self.label = "" if guard is None else guard.label
        """The name of the frame in which it computes, in tracebacks."""
        self._run = unguarded(session.run) if guard is None else guarded(session.run, guard)
        outputs = {node.name for node in session.get_outputs()}
        self.details = tuple(name for name in DETAILS if name in outputs)
        """The tensors of `DETAILS` that the graph computes."""
        self.checked = checked_outputs(interface.action_space, (*interface.required_outputs, *self.details))
        self._plain = tuple(dict.fromkeys((ACTION, *self.checked)))
        """What is computed for plain observations, the action first."""
        self._checked_at = tuple((self._plain.index(name), name) for name in self.checked)
        self.observation_s = 0.0
        """About the time of one call for one observation, as measured by the warm-up, in seconds."""

    @classmethod
    def load(cls, bundle: Bundle, *, num_threads: int = 1, provider: str = CPU, guard: Guard | None = None) -> "Policy":
        """Build the policy and run it once, so that the first request does not pay for the warm-up.

        ONNX Runtime computes a batch on the execution provider `provider`, on the CPU in `num_threads` threads. Without
        a `guard`, a call may take any time.

        Raises:
            BundleInvalid: the files do not hold a policy, or do not match each other.
            GraphRejected: the graph is not self-contained.
            SpaceUnsupported: a space of policy.json is of an unsupported type.
            ProviderUnavailable: the execution provider cannot be used on this machine.
        """
        description = parse_policy_file(bundle.policy)
        interface = Interface.from_json(description)
        check_graph(bundle.graph)
        session = start_session(bundle.graph, num_threads=num_threads, provider=provider)
        _check_names(session, interface)
        digest = hashlib.sha256(bundle.graph)
        digest.update(bundle.policy)
        wrappers, limit = description.get("wrappers", ()), description.get("max_episode_steps", MAX_EPISODE_STEPS)
        environment = EnvironmentSpec(**description["environment"], wrappers=tuple(wrappers), max_episode_steps=limit)
        policy = cls(session, interface, environment, digest.digest(), provider, guard)
        policy._warm_up()
        return policy

    @overload
    def act(self, observations: NDArray[Any]) -> NDArray[Any]: ...

    @overload
    def act(self, observations: Rows) -> Rows: ...

    def act(self, observations: Batch) -> Batch:
        """Return the actions for a batch of observations: greedy ones, unless the rows hold noise.

        Args:
            observations: an array `[batch, *shape]` in the dtype of a space that is one array, or rows.

        Returns:
            For an array, the actions in the environment's own space: `[batch]` int64 for Discrete, else
            `[batch, *shape]` in the action space's dtype. For rows, rows of actions, states and requested details.

        Raises:
            PolicyFailed: ONNX Runtime failed.
            InferenceTimeout: the guard stopped the call.
            OutputNotFinite: an action, a state or the logits of an action hold NaN or an infinity.
        """
        if isinstance(observations, Rows):
            return self._act_on_rows(observations)
        found = self._run(self._plain, {OBSERVATIONS: observations})
        for index, name in self._checked_at:
            check_finite(name, found[index])
        return found[0]  # type: ignore[no-any-return]

    def run(self, tensors: Tensors, outputs: Sequence[str]) -> Tensors:
        """Return the named outputs of the graph for inputs by name, each `[batch, ...]`, also if they are not finite.

        Raises PolicyFailed and InferenceTimeout.
        """
        return dict(zip(outputs, self._run(outputs, tensors), strict=True))

    def _act_on_rows(self, rows: Rows) -> Rows:
        names = (*self.interface.required_outputs, *(self.details if rows.details.any() else ()))
        found = self.run(rows.tensors, tuple(dict.fromkeys((*names, *self.checked))))
        for name in self.checked:
            check_finite(name, found[name])
        return Rows({name: found[name] for name in names}, rows.details, rows.reset)

    def _warm_up(self) -> None:
        """Run the graph and check its outputs. Raises BundleInvalid."""
        for batch in (1, 2):
            try:
                tensors = self.interface.example(batch)
                outputs = self.run(tensors, (*self.interface.required_outputs, *self.details))
                began = perf_counter()
                # Greedy requests leave the noise out.
                self.run({name: tensor for name, tensor in tensors.items() if name != NOISE}, tuple(outputs))
                self.observation_s = (perf_counter() - began) / batch
            except PolicyFault as error:
                raise BundleInvalid(GRAPH_FILE, error.details) from error
            _check_outputs(outputs, batch, self.interface)


def _check_names(session: Any, interface: Interface) -> None:
    """Raise BundleInvalid unless the graph has the inputs and outputs that policy.json declares."""
    inputs, expected = {node.name for node in session.get_inputs()}, set(interface.example(1))
    optional = {node.name for node in session.get_overridable_initializers()}
    if not inputs <= expected or not expected <= inputs | optional:
        reason = f"its inputs are {_quoted(inputs | optional & expected)}, expected {_quoted(expected)}"
        raise BundleInvalid(GRAPH_FILE, reason)
    missing = set(interface.required_outputs) - {node.name for node in session.get_outputs()}
    if missing:
        raise BundleInvalid(GRAPH_FILE, f"it lacks the outputs {_quoted(missing)}")


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))


def _check_outputs(outputs: Tensors, batch: int, interface: Interface) -> None:
    for leaf in leaves(interface.action_space):
        _check_actions(outputs[leaf.tensor(ACTION)], batch, leaf.space)
    for name, shape in interface.state_shapes.items():
        state, expected = outputs[STATE_OUT + name], (batch, *shape)
        if state.shape != expected or state.dtype != np.float32:
            reason = f"its state '{name}' has shape {state.shape} {state.dtype.name}, expected {expected} float32"
            raise BundleInvalid(GRAPH_FILE, reason)
    for name in DETAILS:
        if name in outputs and (outputs[name].shape[:1] != (batch,) or outputs[name].dtype.kind != "f"):
            found = f"shape {outputs[name].shape} {outputs[name].dtype.name}"
            raise BundleInvalid(GRAPH_FILE, f"its {name} have {found}, expected ({batch}, ...) of floats")


def _check_actions(actions: NDArray[Any], batch: int, space: LeafSpace) -> None:
    expected = (batch, *(space.shape or ()))
    if actions.shape != expected:
        raise BundleInvalid(GRAPH_FILE, f"its actions have shape {actions.shape}, expected {expected} for {space}")
    if not np.can_cast(actions.dtype, space.dtype or actions.dtype, casting="same_kind"):
        raise BundleInvalid(GRAPH_FILE, f"its actions are {actions.dtype.name}, expected {space.dtype} for {space}")
