"""RLModule -> ONNX graph."""

import contextlib
import functools
import io
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from gymnasium import Space
from numpy.typing import NDArray
from onnx import helper
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.torch.heads import TorchFreeLogStdMLPHead
from ray.rllib.core.rl_module.torch import TorchRLModule

from pipeline.environments.nested_spaces import Batch, nest
from pipeline.evaluation.player import Player
from pipeline.export.action_heads import Heads, Noise
from pipeline.export.errors import ExportFailed
from pipeline.export.recurrent_state import StateLayout
from pipeline.tensors import ACTION_DIST_INPUTS, ACTION_LOGP, NOISE, STATE_IN, STATE_OUT, VALUES
from serving.policy.spaces import ACTION, OBSERVATIONS, leaves


class ExportablePolicy(torch.nn.Module):
    """Observations -> actions in the environment's own space, and what they were drawn from.

    Computes what RLlib's connectors make of `forward_inference`: without noise the greedy action, with it a sample.

    Args:
        module: The policy.
        observation_space: The environment's.
        action_space: The environment's.
        observation_filter: What the observations pass first.
        with_values: Whether the value estimate is an output, too; the module must have its critic then.
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

    @property
    def noise(self) -> list[Noise]:
        """What the input `noise` consists of, in order."""
        return self.heads.noise

    @functools.cached_property
    def input_names(self) -> list[str]:
        """The graph's inputs, in the order that `forward` takes them in."""
        observed = [leaf.tensor(OBSERVATIONS) for leaf in leaves(self.observation_space)]
        return [*observed, NOISE, *(f"{STATE_IN}{name}" for name in self.state.shapes)]

    @functools.cached_property
    def output_names(self) -> list[str]:
        """The graph's outputs, in the order that `forward` returns them in."""
        acted = [leaf.tensor(ACTION) for leaf in leaves(self.action_space)]
        states = [f"{STATE_OUT}{name}" for name in self.state.shapes]
        values = [VALUES] if self._with_values else []
        return [*acted, ACTION_DIST_INPUTS, ACTION_LOGP, *values, *states]

    def forward(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The tensors of `input_names` -> those of `output_names`."""
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
        # RLlib's connectors make float32 of float64.
        tensors = [each.float() if each.dtype == torch.float64 else each for each in self._filtered(observed)]
        if not self.state:
            return {Columns.OBS: nest(self.observation_space, tensors)}
        steps = [each.unsqueeze(1) for each in tensors]
        return {Columns.OBS: nest(self.observation_space, steps), Columns.STATE_IN: self.state.nest(states)}

    def _filtered(self, observed: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        return observed if self._filter is None else [self._filter(observed[0])]

    def _values(self, batch: dict[str, Any]) -> torch.Tensor:
        values: torch.Tensor = self._module.compute_values(batch)
        return values.squeeze(1) if self.state else values

    @property
    def player(self) -> Player:
        """The greedy policy, to play episodes with."""
        return Player(self.observation_space, self.action_space, self.run, self.state.shapes)

    def run(self, feeds: Batch) -> dict[str, NDArray[Any]]:
        """Outputs by name for inputs by name; noise and state are zero where they are not given."""
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


def to_onnx(policy: ExportablePolicy) -> bytes:
    """The policy as a serialized ONNX graph of standard operators, with a free batch dimension.

    Raises:
        ExportFailed: If torch cannot translate the module, or the graph needs operators beyond ONNX's own.
    """
    examples = _examples(policy)
    batch = torch.export.Dim("batch")
    try:
        with _quiet(), _free_log_stds_traceable(policy):
            program = torch.onnx.export(
                policy.eval(),
                (examples,),
                dynamo=True,
                verbose=False,
                input_names=policy.input_names,
                output_names=policy.output_names,
                dynamic_shapes=([{0: batch} for _ in examples],),
            )
    except (torch.onnx.OnnxExporterError, RuntimeError, TypeError, ValueError, KeyError) as error:
        raise ExportFailed(_reason(error)) from error
    assert program is not None  # noqa: S101  # it is None with the deprecated exporter only
    graph: bytes = _with_defaults(_standard(program.model_proto), policy).SerializeToString()
    return graph


@contextlib.contextmanager
def _free_log_stds_traceable(policy: ExportablePolicy) -> Iterator[None]:
    """RLlib's head for `free_log_std` takes the length of the batch, which would fix it in the graph."""
    heads = [module for module in policy.modules() if isinstance(module, TorchFreeLogStdMLPHead)]
    for head in heads:
        head._forward = functools.partial(_free_log_std, head)  # noqa: SLF001  # RLlib's hook
    try:
        yield
    finally:
        for head in heads:
            del head._forward  # noqa: SLF001  # as above


def _free_log_std(head: TorchFreeLogStdMLPHead, inputs: torch.Tensor) -> torch.Tensor:
    mean = head.net(inputs)
    limit = head.log_std_clip_param_const if head.clip_log_std else math.inf
    return torch.cat([mean, head.log_std.clamp(-limit, limit).expand_as(mean)], dim=-1)


def _examples(policy: ExportablePolicy) -> list[torch.Tensor]:
    observed = [
        torch.from_numpy(np.stack([np.asarray(leaf.space.sample(), leaf.space.dtype) for _ in range(2)]))
        for leaf in leaves(policy.observation_space)
    ]
    states = [torch.zeros(2, *shape) for shape in policy.state.shapes.values()]
    return [*observed, torch.zeros(2, policy.heads.noise_size), *states]


def _reason(error: Exception) -> str:
    """The line of the exporter's account that says what it cannot translate."""
    cause = error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return next((line for line in lines if "aten." in line or "operator" in line.lower()), (lines or [repr(cause)])[0])


def _standard(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without the exporter's notes (they hold stack traces), if it uses ONNX's own operators only."""
    nodes = graph.graph.node
    foreign = sorted({f"{node.domain}::{node.op_type}" for node in nodes if node.domain not in ("", "ai.onnx")})
    if foreign or graph.functions:
        raise ExportFailed(f"it needs the operators {', '.join(foreign)}, which are not ONNX's own.")
    if not all(value.type.tensor_type.shape.dim[0].dim_param for value in graph.graph.input):
        raise ExportFailed("the size of a batch is fixed in it. Where it says len(x), x.shape[0] keeps it free.")
    # Shapes in between say that noise has the observations' batch; by default it has a batch of 1.
    del graph.graph.value_info[:]
    for part in (graph.graph, *nodes, *graph.graph.input, *graph.graph.output):
        part.ClearField("metadata_props")
    return graph


def _with_defaults(model: onnx.ModelProto, policy: ExportablePolicy) -> onnx.ModelProto:
    """Make noise and state optional: zeros, for one observation, that hold for each of a batch."""
    graph = model.graph
    for value in graph.input:
        if value.name == NOISE or value.name.startswith(STATE_IN):
            value.type.tensor_type.shape.dim[0].dim_param = f"{value.name}_batch"
            shape = [1, *(dimension.dim_value for dimension in value.type.tensor_type.shape.dim[1:])]
            graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(shape, np.float32), value.name))
    if policy.state:
        _expand_states(graph, policy)
    return model


def _expand_states(graph: onnx.GraphProto, policy: ExportablePolicy) -> None:
    """Give each state the observations' batch; recurrent operators do not broadcast."""
    first = [helper.make_node("Shape", [policy.input_names[0]], ["batch_size"], start=0, end=1)]
    for name, shape in policy.state.shapes.items():
        given, expanded = f"{STATE_IN}{name}", f"{STATE_IN}{name}.expanded"
        for node in graph.node:
            for index, used in enumerate(node.input):
                if used == given:
                    node.input[index] = expanded
        rest = onnx.numpy_helper.from_array(np.ones(len(shape), np.int64), f"{given}.rest")
        graph.initializer.append(rest)
        first.append(helper.make_node("Concat", ["batch_size", rest.name], [f"{given}.shape"], axis=0))
        first.append(helper.make_node("Expand", [given, f"{given}.shape"], [expanded]))
    for node in reversed(first):
        graph.node.insert(0, node)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its progress and absent optional packages; neither is news to the user."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
