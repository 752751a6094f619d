"""A policy is computed by the execution provider that was chosen, or not at all.

No machine of the tests has a GPU. The package with CUDA is imitated by what it lists as available.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from serving.policy import execution
from serving.policy.errors import BundleInvalid, ProviderUnavailable
from serving.policy.execution import PROVIDERS, check_provider, start_provider, start_session
from serving.policy.policy import Policy
from tests.serving.policies import CARTPOLE_BUNDLE, cartpole_graph, policy_json
from tests.workshop import PROJECT

OBSERVATIONS = np.array([[0, 0, 0.1, 0.5], [0, 0, -0.1, -0.5]], np.float32)
INSTALLED = onnxruntime.get_available_providers()
NEEDED = (
    f"--execution-provider cuda needs the package onnxruntime-gpu (installed providers: {', '.join(INSTALLED)}). "
    "Install it as docs/how-to/use-a-gpu.md describes, or omit the option to compute on the CPU"
)
LARGE_NODES = [
    helper.make_node("MatMul", ["observations", "w0"], ["h0"]),
    helper.make_node("MatMul", ["h0", "w1"], ["h1"]),
    helper.make_node("MatMul", ["h1", "weights"], ["action_dist_inputs"]),
    helper.make_node("ArgMax", ["action_dist_inputs"], ["action"], axis=1, keepdims=0),
]
ADDED_MIB = """if True:
    import sys, psutil
    from serving.policy.bundle import Bundle
    from serving.policy.policy import Policy
    from tests.serving.policies import CARTPOLE_BUNDLE

    first = Policy.load(CARTPOLE_BUNDLE)
    before = psutil.Process().memory_full_info().uss
    policy = Policy.load(Bundle.read(sys.argv[1]))
    print((psutil.Process().memory_full_info().uss - before) / (1 << 20))
"""
pytestmark = pytest.mark.skipif("CUDAExecutionProvider" in INSTALLED, reason="onnxruntime-gpu is installed")


def test_without_the_package_cuda_is_refused_with_the_installed_providers() -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        Policy.load(CARTPOLE_BUNDLE, provider="cuda")
    assert str(caught.value) == NEEDED


def test_a_provider_is_checked_in_a_child_process() -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        check_provider("cuda")
    assert str(caught.value) == NEEDED


def test_the_cpu_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution.sys, "executable", "no such file")
    check_provider("cpu")


@pytest.fixture(autouse=True)
def _new_process() -> Iterator[None]:
    """A provider is started once in each process."""
    start_provider.cache_clear()
    yield
    start_provider.cache_clear()


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_onnx_runtime_must_not_fall_back_to_the_cpu_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """As onnxruntime-gpu does on a machine without a GPU: it lists CUDA, and only logs that it could not start it."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*INSTALLED, "CUDAExecutionProvider"])
    with pytest.raises(ProviderUnavailable, match=r"cuda needs a GPU with its driver, CUDA and cuDNN that ONNX"):
        start_provider("cuda")


@pytest.mark.skipif("AzureExecutionProvider" not in INSTALLED, reason="this ONNX Runtime has only the CPU")
def test_a_provider_that_fails_to_start_is_reported_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROVIDERS, "cuda", ("AzureExecutionProvider", {}))
    monkeypatch.setattr(execution, "_PROBE", b"\x08\x08:\x00")
    with pytest.raises(ProviderUnavailable, match=r"cuda needs a GPU that ONNX Runtime can use \(.*graph"):
        start_provider("cuda")


@pytest.mark.skipif("AzureExecutionProvider" not in INSTALLED, reason="this ONNX Runtime has only the CPU")
def test_another_provider_computes_what_it_can_and_the_cpu_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROVIDERS, "cuda", ("AzureExecutionProvider", {}))
    policy = Policy.load(CARTPOLE_BUNDLE, provider="cuda")
    assert policy.provider == "cuda"
    assert policy.act(OBSERVATIONS).tolist() == [1, 0]
    session = start_session(CARTPOLE_BUNDLE.graph, provider="cuda")
    assert session.get_providers() == ["AzureExecutionProvider", "CPUExecutionProvider"]


def test_a_session_does_not_fall_back_when_its_provider_fails_to_start_or_later() -> None:
    assert start_session(CARTPOLE_BUNDLE.graph)._enable_fallback is False


def test_a_graph_that_cannot_be_loaded_is_no_fault_of_the_provider(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BundleInvalid, match="ONNX Runtime cannot load it"):
        start_session(b"\x08\x08:\x00")
    assert not capsys.readouterr().out


def test_a_policy_is_computed_on_the_cpu_by_default() -> None:
    assert Policy.load(CARTPOLE_BUNDLE).provider == "cpu"


def test_a_policy_keeps_one_copy_of_its_weights(tmp_path: Path) -> None:
    """Measured in a process of its own, which frees the bytes of the graph once the policy is loaded."""
    units = 2896  # 32 MiB of weights
    graph = cartpole_graph(nodes=LARGE_NODES, weights=np.ones((units, 2), np.float32))
    for name, inputs in (("w0", 4), ("w1", units)):
        graph.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((inputs, units), np.float32), name))
    (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())
    (tmp_path / "policy.json").write_bytes(policy_json())
    command = [sys.executable, "-c", ADDED_MIB, str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert 32 <= float(done.stdout) < 48
