"""RLModule -> ONNX graph, and the proof that the graph computes what the module computes."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from gymnasium import spaces
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch import TorchRLModule

from pipeline.errors import ExportDiffers, ExportFailed

#: Names of the graph's input and outputs; serving looks for them.
OBSERVATIONS = "observations"
ACTION = "action"
ACTION_DIST_INPUTS = "action_dist_inputs"

_RELATIVE_TOLERANCE = 1e-5


class GreedyPolicy(torch.nn.Module):
    """Observations -> the most probable action, in the environment's own space, and the distribution's inputs.

    Computes what RLlib's module-to-env connectors make of `forward_inference` without exploration.
    """

    def __init__(self, module: TorchRLModule, action_space: spaces.Space[Any]) -> None:
        super().__init__()
        self._module = module
        self._action_space = action_space
        self._to_action = _Argmax() if isinstance(action_space, spaces.Discrete) else _Unsquash(action_space)

    @property
    def action_range(self) -> np.ndarray:
        """The width of each component of a continuous action; 1 where it has no bounds."""
        width = self._action_space.high - self._action_space.low
        return np.where(np.isfinite(width), width, 1.0)

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`[batch, *shape]` -> actions `[batch, ...]` and `[batch, k]` distribution inputs."""
        inputs = self._module.forward_inference({Columns.OBS: observations})[Columns.ACTION_DIST_INPUTS]
        return self._to_action(inputs), inputs

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Actions for a batch of observations, both as numpy arrays."""
        with torch.inference_mode():
            return self(torch.from_numpy(observations))[0].numpy()


class _Argmax(torch.nn.Module):
    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.argmax(dim=-1)


class _Unsquash(torch.nn.Module):
    """The Gaussian's mean, from RLlib's [-1, 1] to the bounds of the space (as `unsquash_action` does)."""

    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        self._bounded = space.is_bounded()
        self.register_buffer("_low", torch.from_numpy(space.low))
        self.register_buffer("_high", torch.from_numpy(space.high))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        mean, _ = inputs.chunk(2, dim=-1)
        if not self._bounded:
            return mean
        return (self._low + (mean + 1.0) * (self._high - self._low) / 2.0).clamp(self._low, self._high)


def to_onnx(policy: GreedyPolicy, observation_space: spaces.Space[Any]) -> bytes:
    """The policy as a serialized ONNX graph of standard operators, with a free batch dimension.

    Raises:
        ExportFailed: If torch cannot translate the module, or the graph needs operators beyond ONNX's own.
    """
    example = torch.from_numpy(np.stack([observation_space.sample() for _ in range(2)]))
    try:
        with _quiet():
            program = torch.onnx.export(
                policy.eval(),
                (example,),
                dynamo=True,
                verbose=False,
                input_names=[OBSERVATIONS],
                output_names=[ACTION, ACTION_DIST_INPUTS],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportFailed(str(error.__cause__ or error).splitlines()[0]) from error
    return _standard(program.model_proto).SerializeToString()


def _standard(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without the exporter's notes (they hold stack traces), if it uses ONNX's own operators only."""
    foreign = sorted({f"{node.domain}::{node.op_type}" for node in graph.graph.node if node.domain not in ("", "ai.onnx")})
    if foreign or graph.functions:
        raise ExportFailed(f"it needs the operators {', '.join(foreign)}, which are not ONNX's own.")
    for part in (graph.graph, *graph.graph.node, *graph.graph.input, *graph.graph.output, *graph.graph.value_info):
        del part.metadata_props[:]
    for node in graph.graph.node:
        node.doc_string = ""
    return graph


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


def prove_equal(policy: GreedyPolicy, graph: bytes, observations: np.ndarray) -> None:
    """Show that a graph computes what the policy computes.

    Distribution inputs must agree within 1e-5 of their scale (at least 1), discrete actions wherever the two best
    logits differ by more than twice that, continuous ones within 1e-5 of the width of their range.

    Args:
        policy: Restored from the checkpoint that will be registered.
        graph: The serialized graph that will be registered.
        observations: `[batch, *shape]`, from rollouts.

    Raises:
        ExportDiffers: With the quantity and by how much.
    """
    with torch.inference_mode():
        expected_action, expected_inputs = (output.numpy() for output in policy(torch.from_numpy(observations)))
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    action, inputs = session.run([ACTION, ACTION_DIST_INPUTS], {OBSERVATIONS: observations})
    tolerance = _RELATIVE_TOLERANCE * max(1.0, float(np.abs(expected_inputs).max()))
    _require("distribution inputs", np.abs(inputs - expected_inputs), tolerance)
    if np.issubdtype(expected_action.dtype, np.integer):
        best_two = np.sort(expected_inputs, axis=-1)[:, -2:]
        clear = best_two[:, 1] - best_two[:, 0] > 2 * tolerance
        _require("actions", (action != expected_action)[clear], 0.0)
    else:
        _require("actions", np.abs(action - expected_action) / policy.action_range, _RELATIVE_TOLERANCE)


def _require(quantity: str, differences: np.ndarray, tolerance: float) -> None:
    worst = float(differences.max(initial=0.0))
    if not worst <= tolerance:
        raise ExportDiffers(quantity, worst, tolerance)
