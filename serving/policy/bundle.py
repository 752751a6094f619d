"""A bundle: the graph and policy.json of a registered version, and what policy.json describes."""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space

from serving.policy.environments import MAX_EPISODE_STEPS
from serving.policy.errors import BundleFileMissing, BundleInvalid, FormatUnknown
from serving.policy.noise import Noise
from serving.policy.spaces import Json, leaves, nearest_to_zero, space_from_json
from serving.policy.state_tokens import Shapes
from serving.policy.tensors import ACTION, NOISE, OBSERVATIONS, STATE_IN, STATE_OUT, Tensors

GRAPH_FILE = "model.onnx"
POLICY_FILE = "policy.json"
BUNDLE_FILES = (GRAPH_FILE, POLICY_FILE)
"""The only files of a registered version that serving reads."""

FORMAT = 1
"""The `format` of policy.json that this release writes."""

KNOWN_FORMATS = (1,)
"""The formats that this release reads, in ascending order. None is ever removed: versions of it stay registered.

A key that an earlier server may ignore is added within a format. A change after which it would act wrongly is a new
format, and a new golden bundle in tests/serving/policy/golden.
"""


@dataclass(frozen=True)
class Bundle:
    """The bytes of a bundle's two files. Whoever creates it has verified them."""

    graph: bytes = field(repr=False)
    policy: bytes = field(repr=False)

    @classmethod
    def read(cls, directory: str | Path) -> "Bundle":
        """Read a bundle's files from a local directory. Raises BundleFileMissing."""
        return cls(*(_read(Path(directory, name)) for name in BUNDLE_FILES))

    @property
    def digests(self) -> dict[str, str]:
        """The hex sha256 of each file by file name."""
        contents = zip(BUNDLE_FILES, (self.graph, self.policy), strict=True)
        return {name: hashlib.sha256(content).hexdigest() for name, content in contents}

    @property
    def observation_space(self) -> Space[Any]:
        """The space of the policy's observations. Raises BundleInvalid, SpaceUnsupported."""
        return space_from_json(parse_policy_file(self.policy)["observation_space"])


@dataclass(frozen=True)
class EnvironmentSpec:
    """The environment that the policy was trained in: the arguments of `serving.policy.environments.make`."""

    id: str
    kwargs: dict[str, Any]
    wrappers: tuple[str, ...] = ()
    max_episode_steps: int = MAX_EPISODE_STEPS

    def to_json(self) -> dict[str, Json]:
        """Return the environment as `/model` describes it."""
        wrappers = {"wrappers": list(self.wrappers)} if self.wrappers else {}
        changed = self.max_episode_steps != MAX_EPISODE_STEPS
        limit = {"max_episode_steps": self.max_episode_steps} if changed else {}
        return {"id": self.id, "kwargs": self.kwargs, **wrappers, **limit}


@dataclass(frozen=True)
class Interface:
    """The inputs and outputs of a policy, as policy.json declares them."""

    observation_space: Space[Any]
    action_space: Space[Any]
    noise: Noise | None
    state_shapes: Shapes

    @classmethod
    def from_json(cls, description: dict[str, Json]) -> "Interface":
        """Build the interface that the content of policy.json declares. Raises BundleInvalid, SpaceUnsupported."""
        return cls(
            observation_space=space_from_json(description["observation_space"]),
            action_space=space_from_json(description["action_space"]),
            noise=Noise.from_json(description["noise"]) if "noise" in description else None,
            state_shapes=_state_shapes(description.get("state", {})),
        )

    @cached_property
    def required_outputs(self) -> tuple[str, ...]:
        """Names of the graph's outputs that every answer needs."""
        actions = (leaf.tensor(ACTION) for leaf in leaves(self.action_space))
        return *actions, *(STATE_OUT + name for name in self.state_shapes)

    def example(self, batch: int) -> Tensors:
        """Return a valid value for each input of the graph, `[batch, ...]`."""
        observations = {
            leaf.tensor(OBSERVATIONS): np.stack([nearest_to_zero(leaf.space)] * batch)
            for leaf in leaves(self.observation_space)
        }
        noise = {NOISE: np.zeros((batch, self.noise.size), np.float32)} if self.noise else {}
        states = {STATE_IN + name: np.zeros((batch, *shape), np.float32) for name, shape in self.state_shapes.items()}
        return {**observations, **noise, **states}


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BundleFileMissing(file.name, str(file.parent), error.strerror or str(error)) from error


def parse_policy_file(policy: bytes) -> dict[str, Any]:
    """Return the content of policy.json, with its required keys present. Raises BundleInvalid, FormatUnknown."""
    try:
        description = json.loads(policy)
        _check_format(description["format"])
        environment = description["environment"]
        missing = {"observation_space", "action_space"} - description.keys()
        fault = f"it lacks {sorted(missing)}" if missing else None
        if set(environment) != {"id", "kwargs"}:
            fault = '"environment" needs "id" and "kwargs"'
        limit = description.get("max_episode_steps", MAX_EPISODE_STEPS)
        if type(limit) is not int or limit < 1:
            fault = f'"max_episode_steps" is {limit!r}, expected an integer from 1 on'
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleInvalid(POLICY_FILE, repr(error)) from error
    if fault:
        raise BundleInvalid(POLICY_FILE, fault)
    return description  # type: ignore[no-any-return]


def _check_format(found: Json) -> None:
    """Check the format before anything else: the other keys may differ in another one."""
    if type(found) is not int or found < KNOWN_FORMATS[0]:
        raise BundleInvalid(POLICY_FILE, f"its format is {found!r}, expected an integer from {KNOWN_FORMATS[0]} on")
    if found not in KNOWN_FORMATS:
        raise FormatUnknown(found, " and ".join(map(str, KNOWN_FORMATS)))


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
