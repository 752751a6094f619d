"""One version as a model of the Open Inference Protocol, independent of HTTP and gRPC.

Specification: github.com/kserve/open-inference-protocol. Tensors have the names of the graph's inputs and outputs:
`observations[.path]` and `state_in.*`, `action[.path]`, `state_out.*`, and the graph's further outputs.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from serving.experience.episodes import Origin
from serving.policy.errors import OptionInvalid
from serving.policy.policy import Policy
from serving.policy.spaces import Json, Leaf, describe, leaves
from serving.policy.tensors import ACTION, OBSERVATIONS, STATE_IN, Batch, Rows, Tensors
from serving.protocols.episodes import Source
from serving.protocols.errors import ObservationShape
from serving.protocols.json_body import noise_for
from serving.protocols.native.leaf_reader import LeafReader
from serving.protocols.open_inference.datatypes import DATATYPES, InputTensor, OutputTensor, TensorInfo, array_of
from serving.protocols.open_inference.errors import InferenceInvalid, ModelNotServed, VersionNotServed
from serving.registry.model_version import ModelVersion

PLATFORM = "onnx_onnxv1"
STATE_VERSION = "state_version"

EXTENSIONS = frozenset({"sequence_id", "classification", "shared_memory_region"})
"""Parameters of Triton's extensions that change what a response must be. Requests with them are rejected; other unknown
parameters are ignored, as the protocol allows."""


class InferenceRequest(NamedTuple):
    """The content of a request, whether it came over HTTP or gRPC."""

    id: str
    parameters: dict[str, Json]
    inputs: Sequence[InputTensor]
    outputs: Sequence[str]
    """The names of the requested outputs; if empty, all outputs."""


class DecodedRequest(NamedTuple):
    """The batch that a request asks the policy to compute."""

    batch: Batch
    outputs: Sequence[str]
    state_reset: bool
    """Whether the request's state came from another version, so that the initial state replaced it."""
    origin: Origin | None = None
    """Where the observations come from, if the source of the request was given."""


class InferenceModel:
    """Converts requests to batches, and computed batches to output tensors.

    Args:
        policy: the constructor runs it once to learn the dtypes and shapes of its outputs.
        version: gives the model its name and version.
    """

    def __init__(self, policy: Policy, version: ModelVersion) -> None:
        interface = policy.interface
        self.name, self.version = version.name, str(version.version)
        self._policy = policy
        self._observations = {leaf.tensor(OBSERVATIONS): LeafReader(leaf) for leaf in leaves(policy.observation_space)}
        self._states = {STATE_IN + name: LeafReader(_state(shape)) for name, shape in interface.state_shapes.items()}
        self._readers = self._observations | self._states
        self._actions = tuple(leaf.tensor(ACTION) for leaf in leaves(policy.action_space))
        self._details = frozenset(policy.details)
        example = policy.run(interface.example(1), (*interface.required_outputs, *policy.details))
        self._empty = {name: each[:0] for name, each in example.items()}
        self._datatypes = {name: DATATYPES[each.dtype.name] for name, each in self._empty.items()}
        self._all = tuple(self._empty)
        # Without noise, states and details, the batch can be one array, as on the native route.
        self._plain = tuple(self._observations) == (OBSERVATIONS,) and self._actions == (ACTION,) and not self._states
        self.inputs = tuple(_info(name, reader.dtype, reader.shape) for name, reader in self._readers.items())
        self.outputs = tuple(_info(name, each.dtype, each.shape[1:]) for name, each in self._empty.items())

    def check(self, name: str, version: str | None) -> None:
        """Raise ModelNotServed or VersionNotServed unless this model has the name and the version, if there is one."""
        if name != self.name:
            raise ModelNotServed(name, self.name)
        if version and version != self.version:
            raise VersionNotServed(self.name, version, self.version)

    def metadata(self) -> dict[str, Json]:
        """Return the members of the protocol's metadata response."""
        sides = {"inputs": self.inputs, "outputs": self.outputs}
        tensors = {side: [info._asdict() for info in infos] for side, infos in sides.items()}
        return {"name": self.name, "versions": [self.version], "platform": PLATFORM, **tensors}

    def decode(self, request: InferenceRequest, source: Source | None = None) -> DecodedRequest:
        """Return the batch of a request. Raises RequestError with the name of the invalid part.

        `source` is what the headers of the request say.
        """
        if request.parameters:
            check_parameters(request.parameters, "parameters")
            _check_state_version(request.parameters)
        outputs = request.outputs or self._all
        for index, name in enumerate(outputs):
            if name not in self._empty:
                raise InferenceInvalid(f"outputs[{index}].name", describe(name), f"one of {', '.join(self._all)}")
        # Each repetition of a large output would add only a few bytes to the request.
        if len(set(outputs)) < len(outputs):
            raise InferenceInvalid("outputs", "a list with a repeated name", "each name once")
        inputs, state_reset = self._without_foreign_states(request)
        tensors = self._read(inputs)
        rows = len(tensors[next(iter(self._observations))])
        origin = source and source.origin(rows)
        noise: Tensors = {}
        if request.parameters or (origin is not None and origin.explores):
            noise, origin = noise_for(request.parameters, self._policy, rows, origin)
        details = not self._details.isdisjoint(outputs)
        if self._plain and not noise and not details:
            return DecodedRequest(tensors[OBSERVATIONS], outputs, state_reset, origin)
        initial = {name: np.zeros((rows, *reader.shape), reader.dtype) for name, reader in self._states.items()}
        batch = Rows(initial | tensors | noise, np.full(rows, details), np.zeros(rows, np.bool_))
        return DecodedRequest(batch, outputs, state_reset, origin)

    def encode(self, request: DecodedRequest, computed: Batch) -> list[OutputTensor]:
        """Return the requested outputs."""
        if not len(request.batch):
            tensors = self._empty
        else:
            tensors = computed.tensors if isinstance(computed, Rows) else {ACTION: computed}
        return [OutputTensor(name, self._datatypes[name], tensors[name]) for name in request.outputs]

    def _without_foreign_states(self, request: InferenceRequest) -> tuple[Sequence[InputTensor], bool]:
        """Return the inputs without the states of another version, and whether there were any."""
        state_version = request.parameters.get(STATE_VERSION)
        if state_version is None or str(state_version) == self.version:
            return request.inputs, False
        kept = [tensor for tensor in request.inputs if not tensor.name.startswith(STATE_IN)]
        return kept, len(kept) < len(request.inputs)

    def _read(self, inputs: Sequence[InputTensor]) -> Tensors:
        if len({tensor.name for tensor in inputs}) < len(inputs):
            raise InferenceInvalid("inputs", "a list with a repeated name", "each name once")
        tensors = {tensor.name: self._read_one(index, tensor) for index, tensor in enumerate(inputs)}
        # The first request of an episode has no state; later ones have all of its tensors.
        expected = self._observations if self._states.keys().isdisjoint(tensors) else self._readers
        for name in expected:
            if name not in tensors:
                raise InferenceInvalid("inputs", f"a list without '{name}'", ", ".join(expected))
        if len(tensors) > 1 and len({len(tensor) for tensor in tensors.values()}) > 1:
            found = ", ".join(f"{len(tensor)} of {name}" for name, tensor in tensors.items())
            raise InferenceInvalid("inputs", found, "the same number of each")
        return tensors

    def _read_one(self, index: int, tensor: InputTensor) -> NDArray[Any]:
        reader = self._readers.get(tensor.name)
        if reader is None:
            path, known = f"inputs[{index}].name", ", ".join(self._readers)
            raise InferenceInvalid(path, describe(tensor.name), f"one of {known}")
        if not reader.shape and tensor.shape[1:] == (1,):
            # MLServer's clients send a list of N numbers as a tensor of shape (N, 1).
            tensor = tensor._replace(shape=tensor.shape[:1])
        if not tensor.shape or tensor.shape[0] < 0 or tensor.shape[1:] != reader.shape:
            expected = f"({', '.join(map(str, ('batch', *reader.shape)))}) {reader.dtype.name}"
            raise ObservationShape(tensor.name, f"shape {tensor.shape}", expected)
        return reader.read_stack(array_of(tensor), tensor.name)


def check_parameters(parameters: Iterable[str], path: str) -> None:
    """Raise InferenceInvalid if the parameters of a request or of one of its tensors need one of `EXTENSIONS`."""
    for name in parameters:
        if name in EXTENSIONS:
            raise InferenceInvalid(f"{path}.{name}", "an unsupported extension", "only that of binary tensors")


def _check_state_version(parameters: dict[str, Json]) -> None:
    state_version = parameters.get(STATE_VERSION)
    if state_version is not None and type(state_version) not in (str, int):
        raise OptionInvalid(STATE_VERSION, describe(state_version), "the model_version of the response with the state")


def _state(shape: tuple[int, ...]) -> Leaf:
    return Leaf("", spaces.Box(-np.inf, np.inf, shape, np.float32))


def _info(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> TensorInfo:
    return TensorInfo(name, DATATYPES[dtype.name], (-1, *shape))
