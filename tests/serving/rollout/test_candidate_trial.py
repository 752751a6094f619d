import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime import get_available_providers

from serving.policy.bundle import Bundle
from serving.policy.errors import ProviderUnavailable
from serving.rollout import candidate_trial as trial
from serving.rollout.candidate_trial import MIB, TrialConditions, run_trial
from serving.rollout.errors import CandidateRejected
from tests.serving.policies import CARTPOLE_BUNDLE, STEERING_BUNDLE, cartpole_graph, policy_json

LIMITS = TrialConditions(1024 * MIB, 15)


def endless_graph() -> bytes:
    """A graph whose loop never ends."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["still_going"]),
            helper.make_node("Identity", ["kept"], ["still_kept"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("kept", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("still_going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("still_kept", TensorProto.FLOAT, []),
        ],
    )
    # The condition depends on the observations, so the optimizer cannot compute it in advance.
    nodes = [
        helper.make_node("IsNaN", ["observations"], ["nans"]),
        helper.make_node("Cast", ["nans"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers"], ["sum"], keepdims=0),
        helper.make_node("Less", ["sum", "one"], ["start"]),
        helper.make_node("Loop", ["", "start", "sum"], ["never"], body=body),
        helper.make_node("MatMul", ["observations", "weights"], ["logits"]),
        helper.make_node("Add", ["logits", "never"], ["action_dist_inputs"]),
        helper.make_node("ArgMax", ["action_dist_inputs"], ["action"], axis=1, keepdims=0),
    ]
    graph = cartpole_graph(nodes=nodes)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1), "one"))
    return graph.SerializeToString()


def large_graph(floats: int) -> bytes:
    """A graph that allocates a tensor of that many floats, 4 bytes each, when it runs."""
    nodes = [
        helper.make_node("ConstantOfShape", ["many"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        helper.make_node("MatMul", ["observations", "weights"], ["logits"]),
        helper.make_node("Add", ["logits", "sum"], ["action_dist_inputs"]),
        helper.make_node("ArgMax", ["action_dist_inputs"], ["action"], axis=1, keepdims=0),
    ]
    graph = cartpole_graph(nodes=nodes)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array([floats], np.int64), "many"))
    return graph.SerializeToString()


@pytest.mark.parametrize("bundle", [CARTPOLE_BUNDLE, STEERING_BUNDLE])
def test_a_valid_bundle_passes(bundle: Bundle) -> None:
    run_trial(bundle, LIMITS)


def test_the_error_of_an_invalid_bundle_is_that_of_the_policy() -> None:
    with pytest.raises(CandidateRejected, match=r"^model\.onnx is not valid: it is truncated$"):
        run_trial(Bundle(CARTPOLE_BUNDLE.graph[:-10], CARTPOLE_BUNDLE.policy), LIMITS)


@pytest.mark.skipif("CUDAExecutionProvider" in get_available_providers(), reason="onnxruntime-gpu is installed")
def test_a_missing_provider_is_no_fault_of_the_candidate() -> None:
    with pytest.raises(ProviderUnavailable, match="cuda needs the package onnxruntime-gpu"):
        run_trial(CARTPOLE_BUNDLE, replace(LIMITS, provider="cuda"))


def test_a_policy_that_takes_too_long_for_one_observation_is_rejected() -> None:
    limits = replace(LIMITS, inference_timeout_s=1e-9, num_threads=2)
    with pytest.raises(CandidateRejected, match=r"^it takes 0\.0 s of CPU for one observation, at most 1e-09 s fit$"):
        run_trial(CARTPOLE_BUNDLE, limits)


def test_a_graph_that_never_ends_is_rejected_after_the_timeout() -> None:
    start = time.monotonic()
    with pytest.raises(CandidateRejected, match=r"^it did not load and answer within 2 s$"):
        run_trial(Bundle(endless_graph(), policy_json()), replace(LIMITS, timeout_s=2, inference_timeout_s=60))
    assert time.monotonic() - start < 5


def test_a_graph_that_never_ends_is_rejected_once_a_call_has_taken_too_long() -> None:
    with pytest.raises(CandidateRejected, match=r"the policy computed for longer than 0\.5 s and was stopped$"):
        run_trial(Bundle(endless_graph(), policy_json()), replace(LIMITS, inference_timeout_s=0.5))


def test_a_graph_that_exceeds_the_memory_limit_is_rejected() -> None:
    bundle = Bundle(large_graph(64 * MIB), policy_json())  # 256 MiB
    run_trial(bundle, LIMITS)
    with pytest.raises(CandidateRejected, match="Failed to allocate memory"):
        run_trial(bundle, replace(LIMITS, memory_bytes=64 * MIB))


def test_a_graph_that_reads_another_file_is_rejected() -> None:
    graph = cartpole_graph()
    tensor = graph.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(CandidateRejected, match=r"^model\.onnx is rejected: "):
        run_trial(Bundle(graph.SerializeToString(), policy_json()), LIMITS)


def test_a_child_that_crashes_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "__name__", "this_is_no_module")
    with pytest.raises(CandidateRejected, match=r"^loading and running it ended its process with status 1$"):
        run_trial(CARTPOLE_BUNDLE, LIMITS)


def test_a_child_that_is_killed_is_reported_with_the_signal_and_its_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the system kills a process when memory runs out."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -KILL $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(trial.sys, "executable", str(python))
    with pytest.raises(CandidateRejected) as caught:
        run_trial(CARTPOLE_BUNDLE, LIMITS)
    assert str(caught.value) == ("loading and running it ended its process by SIGKILL, with 1024 MiB of memory allowed")
