"""Starts ONNX Runtime sessions on an execution provider: the CPU, or an NVIDIA GPU through `onnxruntime-gpu`."""

import contextlib
import functools
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from serving.policy.errors import BundleInvalid, ProviderUnavailable
from serving.processes import child_environment

CPU, CUDA = "cpu", "cuda"

PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    CPU: ("CPUExecutionProvider", {}),
    CUDA: (
        "CUDAExecutionProvider",
        {
            # With TF32, the actions would differ from those of the checkpoint in the third digit.
            "use_tf32": "0",
            # The default tries all algorithms for each new batch size, and batches have any size.
            "cudnn_conv_algo_search": "HEURISTIC",
            # By default the arena doubles, although replicas may share the GPU's memory.
            "arena_extend_strategy": "kSameAsRequested",
        },
    ),
}
"""ONNX Runtime's name and options of each execution provider."""

_PROBE = (
    b'\x08\x08\x12\x00:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08'
    b"\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x11"
)
"""The graph y = x, with which a provider is tried."""


def start_session(graph: bytes, *, num_threads: int = 1, provider: str = CPU) -> Any:
    """Return a session of a serialized graph. It never falls back to another provider.

    Raises:
        BundleInvalid: ONNX Runtime cannot load the graph.
        ProviderUnavailable: the provider, or the GPU that it needs, is missing.
    """
    start_provider(provider)
    try:
        return _session(graph, num_threads, provider)
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise BundleInvalid("model.onnx", f"ONNX Runtime cannot load it: {error}") from error


def check_provider(provider: str) -> None:
    """Check that a session can be started on a provider, in a child process: no GPU memory stays allocated here.

    Raises:
        ProviderUnavailable: the provider, or the GPU that it needs, is missing.
    """
    if provider == CPU:
        return
    command = [sys.executable, "-m", __name__, provider]
    child = subprocess.run(
        command, env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
    )
    if child.returncode:
        raise ProviderUnavailable(provider, child.stdout.strip() or f"an ONNX Runtime that starts ({child.returncode})")


@functools.cache
def start_provider(provider: str) -> None:
    """Load the libraries of a provider, once in each process, and check that it computes.

    Raises:
        ProviderUnavailable: the provider, or the GPU that it needs, is missing.
    """
    import onnxruntime

    if provider == CPU:
        return
    name, _ = PROVIDERS[provider]
    available = onnxruntime.get_available_providers()
    if name not in available:
        needed = f"the package onnxruntime-gpu (installed providers: {', '.join(available)})"
        raise ProviderUnavailable(provider, needed)
    with contextlib.redirect_stdout(io.StringIO()):  # It prints what is missing. The session will fail for it.
        onnxruntime.preload_dlls()
    try:
        started = _session(_PROBE, 1, provider).get_providers()
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise ProviderUnavailable(provider, f"a GPU that ONNX Runtime can use ({error})") from error
    if name not in started:  # ONNX Runtime only logs that it could not load the provider's libraries.
        raise ProviderUnavailable(provider, "a GPU with its driver, CUDA and cuDNN that ONNX Runtime can use")


def _session(graph: bytes, num_threads: int, provider: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3
    # Idle threads that spin would take the core from the HTTP server.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A GPU computes what it has an operator for, the CPU the rest.
    chosen = dict.fromkeys((provider, CPU))
    with _readable_once(graph) as source:
        return onnxruntime.InferenceSession(
            source, options, providers=[PROVIDERS[each] for each in chosen], enable_fallback=0
        )


@contextlib.contextmanager
def _readable_once(graph: bytes) -> Iterator[str | bytes]:
    """Give the path of a file in memory with the graph: given its bytes, a session keeps them beside the weights."""
    if not hasattr(os, "memfd_create"):  # only Linux has it
        yield graph
        return
    with os.fdopen(os.memfd_create("model.onnx"), "wb") as file:
        file.write(graph)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def main(provider: str) -> None:
    """Try a provider; print what it needs, and exit with 1, if it cannot be used."""
    try:
        start_provider(provider)
    except ProviderUnavailable as error:
        sys.stdout.write(error.needed)
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
