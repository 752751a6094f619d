"""A loaded bundle: observations in, actions out. It knows neither HTTP nor the registry."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from serving.errors import BundleFileMissing, BundleInvalid, PolicyFailed
from serving.graph import check_graph
from serving.spaces import space_from_json

GRAPH_FILE = "model.onnx"
POLICY_FILE = "policy.json"
BUNDLE_FILES = (GRAPH_FILE, POLICY_FILE)
"""The files of a registered version that serving reads, and no other."""

INPUT, OUTPUT = "observations", "action"
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
    """The environment that the policy was trained in: what `gymnasium.make(id, **kwargs)` takes."""

    id: str
    kwargs: dict[str, Any]


class Policy:
    """A greedy policy, run by ONNX Runtime. Safe to share between threads."""

    def __init__(
        self, session: Any, observation_space: Space[Any], action_space: Space[Any], environment: Environment
    ) -> None:
        self.observation_space = observation_space
        self.action_space = action_space
        self.environment = environment
        self._session = session

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
        observation_space = space_from_json(description["observation_space"])
        check_graph(bundle.graph)
        session = _start_session(bundle.graph, num_threads)
        _check_signature(session, observation_space)
        environment = Environment(**description["environment"])
        policy = cls(session, observation_space, space_from_json(description["action_space"]), environment)
        policy._warm_up()
        return policy

    def act(self, observations: NDArray[Any]) -> NDArray[Any]:
        """Return the greedy actions for a batch of observations.

        Args:
            observations: `[batch, *shape]` in the observation space's dtype.

        Returns:
            `[batch]` int64 for Discrete, `[batch, *shape]` in the action space's dtype for Box; in the
            environment's own space.

        Raises:
            PolicyFailed: ONNX Runtime did.
        """
        try:
            return self._session.run((OUTPUT,), {INPUT: observations})[0]  # type: ignore[no-any-return]
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise PolicyFailed(f"{type(error).__name__}: {error}") from error

    def _warm_up(self) -> None:
        shape = self.observation_space.shape or ()
        for batch in (1, 2):
            try:
                actions = self.act(np.zeros((batch, *shape), self.observation_space.dtype))
            except PolicyFailed as error:
                raise BundleInvalid(GRAPH_FILE, error.reason) from error
            _check_actions(actions, batch, self.action_space)


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


def _check_signature(session: Any, space: Space[Any]) -> None:
    if not isinstance(space, spaces.Box):
        raise BundleInvalid(POLICY_FILE, f"observations of {space} need more than the one input this release feeds")
    inputs = {node.name: node for node in session.get_inputs()}
    if set(inputs) != {INPUT}:
        raise BundleInvalid(GRAPH_FILE, f"its inputs are {sorted(inputs)}, expected only '{INPUT}'")
    if OUTPUT not in {node.name for node in session.get_outputs()}:
        raise BundleInvalid(GRAPH_FILE, f"it has no output '{OUTPUT}'")


def _check_actions(actions: NDArray[Any], batch: int, space: Space[Any]) -> None:
    expected = (batch, *(space.shape or ()))
    if actions.shape != expected:
        raise BundleInvalid(GRAPH_FILE, f"its actions have shape {actions.shape}, expected {expected} for {space}")
    if not np.can_cast(actions.dtype, space.dtype or actions.dtype, casting="same_kind"):
        raise BundleInvalid(GRAPH_FILE, f"its actions are {actions.dtype.name}, expected {space.dtype} for {space}")
