"""Translates an exportable policy into an ONNX graph."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import torch
from onnx import helper

from pipeline.export.errors import ExportFailed
from pipeline.export.exportable_policy import ExportablePolicy
from pipeline.rllib.compat import free_log_stds_traceable
from serving.policy.spaces import leaves
from serving.policy.tensors import NOISE, STATE_IN


def to_onnx(policy: ExportablePolicy) -> bytes:
    """Return the policy as a serialized ONNX graph of standard operators, with a free batch dimension.

    Raises:
        ExportFailed: If torch cannot translate the module, or the graph needs operators beyond ONNX's own.
    """
    examples = _examples(policy)
    batch = torch.export.Dim("batch")
    try:
        with _quiet(), free_log_stds_traceable(policy):
            program = torch.onnx.export(
                policy.eval(),
                (examples,),
                dynamo=True,
                input_names=policy.input_names,
                output_names=policy.output_names,
                dynamic_shapes=([{0: batch} for _ in examples],),
            )
    except (torch.onnx.OnnxExporterError, RuntimeError, TypeError, ValueError, KeyError) as error:
        raise ExportFailed(_reason(error)) from error
    assert program is not None  # noqa: S101  # only the deprecated exporter returns None
    graph: bytes = _with_defaults(_standard(program.model_proto), policy).SerializeToString()
    return graph


def without_optional_inputs(graph: bytes) -> onnx.ModelProto:
    """Return a graph whose optional inputs are constants: zero noise, which makes it greedy, and the initial state."""
    model = onnx.load_from_string(graph)
    optional = {initializer.name for initializer in model.graph.initializer}
    for value in [each for each in model.graph.input if each.name in optional]:
        model.graph.input.remove(value)
    return model


def _examples(policy: ExportablePolicy) -> list[torch.Tensor]:
    observed = [
        torch.from_numpy(np.stack([np.asarray(leaf.space.sample(), leaf.space.dtype) for _ in range(2)]))
        for leaf in leaves(policy.observation_space)
    ]
    states = [torch.zeros(2, *shape) for shape in policy.state.shapes.values()]
    return [*observed, torch.zeros(2, policy.heads.noise_size), *states]


def _reason(error: Exception) -> str:
    """Return the line of the exporter's report that names what it cannot translate."""
    cause = error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return next((line for line in lines if "aten." in line or "operator" in line.lower()), (lines or [repr(cause)])[0])


def _standard(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph without the exporter's metadata, which holds stack traces.

    Raises:
        ExportFailed: If it uses operators beyond ONNX's own, or its batch size is fixed.
    """
    nodes = graph.graph.node
    foreign = sorted({f"{node.domain}::{node.op_type}" for node in nodes if node.domain not in ("", "ai.onnx")})
    if foreign or graph.functions:
        raise ExportFailed(f"it needs the operators {', '.join(foreign)}, which are not part of the ONNX standard.")
    if not all(value.type.tensor_type.shape.dim[0].dim_param for value in graph.graph.input):
        raise ExportFailed("the module fixes the batch size. Replace len(x) by x.shape[0], which keeps it free.")
    # The intermediate shapes declare that noise has the observations' batch size; its default has a batch size of 1.
    del graph.graph.value_info[:]
    for part in (graph.graph, *nodes, *graph.graph.input, *graph.graph.output):
        part.ClearField("metadata_props")
    return graph


def _with_defaults(model: onnx.ModelProto, policy: ExportablePolicy) -> onnx.ModelProto:
    """Make noise and state optional: they default to zeros of batch size 1, which broadcast to the batch."""
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
    """Expand each state to the observations' batch size, because recurrent operators do not broadcast."""
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
    """Suppress the exporter's progress and its warnings about optional packages that are not installed."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
