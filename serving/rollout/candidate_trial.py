"""Loads and runs a bundle in a child process, in a sandbox, before a replica loads it.

A graph may loop forever, allocate 20 GB, or crash ONNX Runtime or make it run other code. The child imports only what a
policy needs, has none of the replica's environment variables with credentials, and reads the bundle from a pipe:

    python -m serving.rollout.candidate_trial < header, graph, policy.json  ->  {"error": null, "provider_needs": null}
"""

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, BinaryIO

from serving.policy.bundle import Bundle
from serving.policy.errors import BundleError, ProviderUnavailable
from serving.policy.execution import CPU, start_provider
from serving.processes import NICENESS, die_with_parent, untrusted_environment
from serving.replica.limits import SLOWEST_S
from serving.rollout.errors import CandidateRejected
from serving.sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from serving.policy.policy import Policy

MIB = 1 << 20


def run_trial(bundle: Bundle, memory_bytes: int, timeout_s: float, num_threads: int = 1, provider: str = CPU) -> None:
    """Load the bundle and run its policy, in a child process.

    The child may allocate `memory_bytes` after it has imported ONNX Runtime and started the execution provider, and
    must end within `timeout_s`. With `num_threads`, the policy may take SLOWEST_S for one observation.

    Raises:
        CandidateRejected: the bundle does not load or run, or exceeds the limits.
        ProviderUnavailable: the execution provider cannot be used on this machine.
    """
    cpu_s = SLOWEST_S * num_threads
    limits = {"memory_bytes": memory_bytes, "cpu_s": cpu_s, "provider": provider}
    header = json.dumps({"graph": len(bundle.graph), **limits}).encode()
    try:
        child = subprocess.run(
            [sys.executable, "-m", __name__],
            input=b"".join([header, b"\n", bundle.graph, bundle.policy]),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=untrusted_environment(),
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CandidateRejected(f"it did not load and answer within {timeout_s:g} s") from None
    try:
        found = json.loads(child.stdout)
        error, needed = found["error"], found["provider_needs"]
    except (ValueError, KeyError, TypeError):
        error, needed = f"loading and running it ended its process with status {child.returncode}", None
        if child.returncode < 0:
            name = signal.Signals(-child.returncode).name
            error = (
                f"loading and running it ended its process by {name}, with {memory_bytes // MIB} MiB of memory allowed"
            )
    if needed is not None:
        raise ProviderUnavailable(provider, needed)
    if error is not None:
        raise CandidateRejected(error)


def main() -> None:
    """Try the bundle on stdin, print its error or null and what the provider needs or null, and exit."""
    die_with_parent()
    os.nice(NICENESS)
    error = needed = None
    try:
        error = _try(sys.stdin.buffer)
    except ProviderUnavailable as missing:
        needed = missing.needed
    print(json.dumps({"error": error, "provider_needs": needed}), flush=True)  # noqa: T201 - the parent reads it
    os._exit(0)  # the runtime may crash in its cleanup after a failed allocation


def _try(stream: BinaryIO) -> str | None:
    from serving.policy.policy import Policy

    header = json.loads(stream.readline())
    provider = header["provider"]
    start_provider(provider)  # before memory and files are limited
    bundle = Bundle(stream.read(header["graph"]), stream.read())
    Sandbox(
        memory_bytes=header["memory_bytes"],
        file_bytes=len(bundle.graph) + MIB,  # ONNX Runtime reads the graph from a file in memory
        gpu=provider != CPU,
    ).enter()
    try:
        cpu_s = _observation_s(Policy.load(bundle, provider=provider))
    except BundleError as error:
        return str(error)
    except MemoryError:
        return f"it needs more than {header['memory_bytes'] // MIB} MiB of memory"
    limit_s = header["cpu_s"]
    return None if cpu_s <= limit_s else f"it takes {cpu_s:.1f} s of CPU for one observation, at most {limit_s:g} s fit"


def _observation_s(policy: "Policy") -> float:
    """Return the CPU time that a policy takes for one observation, which other processes do not change."""
    tensors = policy.interface.example(1)
    start = time.process_time()
    policy.run(tensors, policy.interface.required_outputs)
    return time.process_time() - start


if __name__ == "__main__":
    main()
