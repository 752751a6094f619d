"""A loaded bundle: observations in, actions out. It knows neither HTTP nor the registry."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from serving.policy.errors import BundleInvalid, PolicyFailed
from serving.policy.graph_check import check_graph
from serving.policy.noise import NOISE, Noise
from serving.policy.rows import Batch, Rows, Tensors
from serving.policy.spaces import ACTION, OBSERVATIONS, Json, LeafSpace, leaves, space_from_json
from serving.policy.state_tokens import STATE_IN, STATE_OUT, Shapes
from serving.registry.errors import BundleFileMissing

GRAPH_FILE = "model.onnx"
POLICY_FILE = "policy.json"
BUNDLE_FILES = (GRAPH_FILE, POLICY_FILE)
"""The files of a registered version that serving reads, and no other."""

DETAILS = ("action_dist_inputs", "action_logp", "values")
"""Outputs that say more about an action; a graph need not have them."""

FORMAT = 1


@dataclass(frozen=True)
class Bundle:
    """The bytes of the two files that make a policy. Whoever made it has verified them."""

    graph: bytes = field(repr=False)
    policy: bytes = field(repr=False)

    @classmethod
    def read(cls, directory: str | Path) -> "Bundle":
        """Read a bundle's files from a local directory. Raises BundleFileMissing."""
        try:
            graph, policy = (Path(directory, name).read_bytes() for name in BUNDLE_FILES)
        except OSError as error:
            file = Path(error.filename).name
            raise BundleFileMissing(file, str(directory), error.strerror or str(error)) from error
        return cls(graph, policy)

    @property
    def observation_space(self) -> Space[Any]:
        """What the policy takes. Raises BundleInvalid, SpaceUnsupported."""
        return space_from_json(_parse(self.policy)["observation_space"])


@dataclass(frozen=True)
class Environment:
    """The environment that the policy was trained in: what `serving.policy.environments.make` takes."""

    id: str
    kwargs: dict[str, Any]
    wrappers: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """Describe it as `/model` does."""
        wrappers = {"wrappers": list(self.wrappers)} if self.wrappers else {}
        return {"id": self.id, "kwargs": self.kwargs, **wrappers}


@dataclass(frozen=True)
class Interface:
    """What a policy takes and gives, as policy.json has it."""

    observation_space: Space[Any]
    action_space: Space[Any]
    noise: Noise | None
    state_shapes: Shapes

    @classmethod
    def from_json(cls, description: dict[str, Json]) -> "Interface":
        """Read the content of policy.json. Raises BundleInvalid, SpaceUnsupported."""
        return cls(
            observation_space=space_from_json(description["observation_space"]),
            action_space=space_from_json(description["action_space"]),
            noise=Noise.from_json(description["noise"]) if "noise" in description else None,
            state_shapes=_state_shapes(description.get("state", {})),
        )

    @cached_property
    def required_outputs(self) -> tuple[str, ...]:
        """Names of the graph's outputs that each answer needs."""
        actions = (leaf.tensor(ACTION) for leaf in leaves(self.action_space))
        return *actions, *(STATE_OUT + name for name in self.state_shapes)

    def example(self, batch: int) -> Tensors:
        """Return something to feed to each input of the graph, `[batch, ...]`."""
        observations = {
            leaf.tensor(OBSERVATIONS): _example(leaf.space, batch) for leaf in leaves(self.observation_space)
        }
        noise = {NOISE: np.zeros((batch, self.noise.size), np.float32)} if self.noise else {}
        states = {STATE_IN + name: np.zeros((batch, *shape), np.float32) for name, shape in self.state_shapes.items()}
        return {**observations, **noise, **states}


class Policy:
    """A policy, greedy unless it is fed noise, run by ONNX Runtime. Safe to share between threads."""

    def __init__(self, session: Any, interface: Interface, environment: Environment, digest: bytes) -> None:
        self.interface = interface
        self.environment = environment
        self.digest = digest
        """Of the bundle that it was loaded from."""
        self._session = session
        given = {node.name for node in session.get_outputs()}
        self.details = tuple(name for name in DETAILS if name in given)
        """The outputs that say more about an action."""

    @property
    def observation_space(self) -> Space[Any]:
        """What it takes."""
        return self.interface.observation_space

    @property
    def action_space(self) -> Space[Any]:
        """What it gives."""
        return self.interface.action_space

    @classmethod
    def load(cls, bundle: Bundle, *, num_threads: int = 1) -> "Policy":
        """Build the policy and run it once, so that the first request finds it warm.

        Args:
            bundle: verified bytes.
            num_threads: threads that ONNX Runtime computes one batch with.

        Raises:
            BundleInvalid: the files do not hold a policy, or do not fit each other.
            GraphRefused: the graph isn't self-contained.
            SpaceUnsupported: a space of policy.json isn't known here.
        """
        description = _parse(bundle.policy)
        interface = Interface.from_json(description)
        check_graph(bundle.graph)
        session = _start_session(bundle.graph, num_threads)
        _check_signature(session, interface)
        digest = hashlib.sha256(bundle.graph + bundle.policy).digest()
        environment = Environment(**description["environment"], wrappers=tuple(description.get("wrappers", ())))
        policy = cls(session, interface, environment, digest)
        policy._warm_up()
        return policy

    @overload
    def act(self, observations: NDArray[Any]) -> NDArray[Any]: ...

    @overload
    def act(self, observations: Rows) -> Rows: ...

    def act(self, observations: Batch) -> Batch:
        """Return the actions for a batch of observations: greedy, unless the rows hold noise.

        Args:
            observations: of a space that is one leaf, `[batch, *shape]` in its dtype; or rows.

        Returns:
            For an array, `[batch]` int64 for Discrete, `[batch, *shape]` in the action space's dtype else; in
            the environment's own space. For rows, rows of the actions, the states and what details there are.

        Raises:
            PolicyFailed: ONNX Runtime did.
        """
        if isinstance(observations, Rows):
            return self._act_on_rows(observations)
        try:
            return self._session.run((ACTION,), {OBSERVATIONS: observations})[0]  # type: ignore[no-any-return]
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise PolicyFailed(f"{type(error).__name__}: {error}") from error

    def run(self, tensors: Tensors, outputs: Sequence[str]) -> Tensors:
        """Return the named outputs of the graph for inputs by name, each `[batch, ...]`. Raises PolicyFailed."""
        try:
            return dict(zip(outputs, self._session.run(outputs, tensors), strict=True))
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise PolicyFailed(f"{type(error).__name__}: {error}") from error

    def _act_on_rows(self, rows: Rows) -> Rows:
        details = self.details if rows.details.any() else ()
        return Rows(self.run(rows.tensors, (*self.interface.required_outputs, *details)), rows.details, rows.reset)

    def _warm_up(self) -> None:
        for batch in (1, 2):
            try:
                tensors = self.interface.example(batch)
                found = self.run(tensors, (*self.interface.required_outputs, *self.details))
                # Noise may be left out.
                self.run({name: tensor for name, tensor in tensors.items() if name != NOISE}, tuple(found))
            except PolicyFailed as error:
                raise BundleInvalid(GRAPH_FILE, error.reason) from error
            _check_outputs(found, batch, self.interface)


def _parse(policy: bytes) -> dict[str, Any]:
    try:
        description = json.loads(policy)
        environment = description["environment"]
        missing = {"observation_space", "action_space"} - description.keys()
        fault = f"it lacks {sorted(missing)}" if missing else None
        if set(environment) != {"id", "kwargs"}:
            fault = '"environment" needs "id" and "kwargs"'
        if description["format"] != FORMAT:
            fault = f"format {description['format']} is not {FORMAT}, which this release reads"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleInvalid(POLICY_FILE, repr(error)) from error
    if fault:
        raise BundleInvalid(POLICY_FILE, fault)
    return description  # type: ignore[no-any-return]


def _start_session(graph: bytes, num_threads: int) -> Any:
    import onnxruntime  # here: spaces and errors do without it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Idle threads that spin would take the core from the HTTP server.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise BundleInvalid(GRAPH_FILE, f"ONNX Runtime cannot load it: {error}") from error


def _state_shapes(description: Json) -> Shapes:
    try:
        shapes = {name: tuple(state["shape"]) for name, state in description.items()}
        lengths = [length for shape in shapes.values() for length in shape]
        fault = any(set(state) != {"shape"} for state in description.values())
        fault = fault or not all(type(length) is int and length > 0 for length in lengths)
    except (AttributeError, KeyError, TypeError):
        fault = True
    if fault:
        raise BundleInvalid(POLICY_FILE, '"state" is not of the form {"h": {"shape": [64]}, ...}')
    return shapes


def _check_signature(session: Any, interface: Interface) -> None:
    fed, expected = {node.name for node in session.get_inputs()}, set(interface.example(1))
    optional = {node.name for node in session.get_overridable_initializers()}
    if not fed <= expected or not expected <= fed | optional:
        raise BundleInvalid(
            GRAPH_FILE, f"its inputs are {_names(fed | optional & expected)}, expected {_names(expected)}"
        )
    missing = set(interface.required_outputs) - {node.name for node in session.get_outputs()}
    if missing:
        raise BundleInvalid(GRAPH_FILE, f"it lacks the outputs {_names(missing)}")


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))


def _example(space: LeafSpace, batch: int) -> NDArray[Any]:
    # A count may begin elsewhere than at zero, which one-hot encoding would not take.
    start = space.start if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) else 0
    return np.full((batch, *(space.shape or ())), start, space.dtype)


def _check_outputs(found: Tensors, batch: int, interface: Interface) -> None:
    for leaf in leaves(interface.action_space):
        _check_actions(found[leaf.tensor(ACTION)], batch, leaf.space)
    for name, shape in interface.state_shapes.items():
        state = found[STATE_OUT + name]
        if state.shape != (batch, *shape) or state.dtype != np.float32:
            raise BundleInvalid(
                GRAPH_FILE,
                f"its state '{name}' has shape {state.shape} {state.dtype.name}, expected {(batch, *shape)} float32",
            )
    for name in DETAILS:
        if name in found and found[name].shape[:1] != (batch,):
            raise BundleInvalid(GRAPH_FILE, f"its {name} have shape {found[name].shape}, expected ({batch}, ...)")


def _check_actions(actions: NDArray[Any], batch: int, space: LeafSpace) -> None:
    expected = (batch, *(space.shape or ()))
    if actions.shape != expected:
        raise BundleInvalid(GRAPH_FILE, f"its actions have shape {actions.shape}, expected {expected} for {space}")
    if not np.can_cast(actions.dtype, space.dtype or actions.dtype, casting="same_kind"):
        raise BundleInvalid(GRAPH_FILE, f"its actions are {actions.dtype.name}, expected {space.dtype} for {space}")
