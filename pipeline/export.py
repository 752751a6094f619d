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
        self._to_action = _Unsquash(action_space) if isinstance(action_space, spaces.Box) else _Argmax()

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`[batch, *shape]` -> actions `[batch, ...]` and `[batch, k]` distribution inputs."""
        inputs = self._module.forward_inference({Columns.OBS: observations})[Columns.ACTION_DIST_INPUTS]
        return self._to_action(inputs), inputs

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Actions for a batch of observations, both as numpy arrays."""
        with torch.inference_mode():
            action, _ = self.forward(torch.from_numpy(observations))
        return np.asarray(action)


class _Argmax(torch.nn.Module):
    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.argmax(dim=-1)


class _Unsquash(torch.nn.Module):
    """The Gaussian's mean, from RLlib's [-1, 1] to the bounds of the space (as `unsquash_action` does)."""

    _low: torch.Tensor
    _high: torch.Tensor

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
    assert program is not None  # noqa: S101  # it is None with the deprecated exporter only
    graph: bytes = _standard(program.model_proto).SerializeToString()
    return graph


def _standard(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without the exporter's notes (they hold stack traces), if it uses ONNX's own operators only."""
    nodes = graph.graph.node
    foreign = sorted({f"{node.domain}::{node.op_type}" for node in nodes if node.domain not in ("", "ai.onnx")})
    if foreign or graph.functions:
        raise ExportFailed(f"it needs the operators {', '.join(foreign)}, which are not ONNX's own.")
    for part in (graph.graph, *nodes, *graph.graph.input, *graph.graph.output, *graph.graph.value_info):
        part.ClearField("metadata_props")
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


def prove_equal(policy: GreedyPolicy, graph: bytes, observations: np.ndarray, action_space: spaces.Space[Any]) -> None:
    """Show that a graph computes what the policy computes.

    Distribution inputs must agree within 1e-5 of their scale (at least 1), discrete actions wherever the two best
    logits differ by more than twice that, continuous ones within 1e-5 of the width of their range.

    Args:
        policy: Restored from the checkpoint that will be registered.
        graph: The serialized graph that will be registered.
        observations: `[batch, *shape]`, from rollouts.
        action_space: That of the policy.

    Raises:
        ExportDiffers: With the quantity and by how much.
    """
    with torch.inference_mode():
        expected_action, expected_inputs = map(np.asarray, policy.forward(torch.from_numpy(observations)))
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    action, inputs = session.run([ACTION, ACTION_DIST_INPUTS], {OBSERVATIONS: observations})
    tolerance = _RELATIVE_TOLERANCE * max(1.0, float(np.abs(expected_inputs).max()))
    _require("distribution inputs", np.abs(inputs - expected_inputs), tolerance)
    if isinstance(action_space, spaces.Box):
        width = np.where(action_space.high - action_space.low < np.inf, action_space.high - action_space.low, 1.0)
        _require("actions", np.abs(action - expected_action) / width, _RELATIVE_TOLERANCE)
    else:
        best_two = np.sort(expected_inputs, axis=-1)[:, -2:]
        clear = best_two[:, 1] - best_two[:, 0] > 2 * tolerance
        _require("actions", (action != expected_action)[clear].astype(float), 0.0)


def _require(quantity: str, differences: np.ndarray, tolerance: float) -> None:
    worst = float(differences.max(initial=0.0))
    if not worst <= tolerance:
        raise ExportDiffers(quantity, worst, tolerance)
