"""Loads and runs a bundle in a child process, in a sandbox, before a replica loads it.

A graph may loop forever, allocate 20 GB, or crash ONNX Runtime or make it run other code. The child imports only what a
policy needs, has none of the replica's environment variables with credentials, and reads the bundle from a pipe:

    python -m serving.rollout.candidate_trial < header, graph, policy.json, observations  ->
        {"error": null, "provider_needs": null}
"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, BinaryIO

from serving.policy.bundle import Bundle
from serving.policy.errors import BundleError, ProviderUnavailable
from serving.policy.execution import CPU, start_provider
from serving.policy.guards.watchdog import Guard
from serving.policy.tensors import Tensors
from serving.processes import NICENESS, die_with_parent, untrusted_environment
from serving.replica.limits import SLOWEST_S
from serving.rollout.errors import CandidateRejected
from serving.rollout.trial.observations import from_bytes, to_bytes
from serving.sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from serving.arguments import Arguments  # the child does without it

MIB = 1 << 20


@dataclass(frozen=True)
class TrialConditions:
    """What the outcome of a trial depends on, apart from the files and the live observations."""

    memory_bytes: int
    """What the child may allocate after it has imported ONNX Runtime and started the execution provider."""
    timeout_s: float
    """The time within which the child must end."""
    num_threads: int = 1
    """With so many threads, the policy may take SLOWEST_S for one observation."""
    provider: str = CPU
    max_batch_size: int = 1
    """The most observations in one call."""
    inference_timeout_s: float = 1.0
    """The time limit of one call."""

    @property
    def observation_s(self) -> float:
        """The CPU time that the policy may take for one observation."""
        return min(SLOWEST_S, self.inference_timeout_s / 2) * self.num_threads


def trial_conditions(arguments: "Arguments") -> TrialConditions:
    """Return the conditions of a trial of a version that would be served with these arguments."""
    return TrialConditions(
        arguments.candidate_memory_bytes,
        arguments.candidate_timeout_s,
        arguments.num_threads,
        arguments.execution_provider,
        arguments.max_batch_size,
        arguments.inference_timeout_s,
    )


def run_trial(bundle: Bundle, conditions: TrialConditions, live: Tensors | None = None) -> None:
    """Load the bundle and run its policy, in a child process.

    The policy computes actions for observations of the whole space, and for the `live` ones that fit, one by one and in
    batches.

    Raises:
        CandidateRejected: the bundle does not load or run, or exceeds the limits.
        ProviderUnavailable: the execution provider cannot be used on this machine.
    """
    memory_bytes, timeout_s, provider = conditions.memory_bytes, conditions.timeout_s, conditions.provider
    rows = to_bytes(live or {})
    lengths = {"graph": len(bundle.graph), "policy": len(bundle.policy)}
    header = json.dumps({**lengths, "conditions": asdict(conditions)}).encode()
    try:
        child = subprocess.run(
            [sys.executable, "-m", __name__],
            input=b"".join([header, b"\n", bundle.graph, bundle.policy, rows]),
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
    from serving.rollout.trial.examination import examine

    header = json.loads(stream.readline())
    conditions = TrialConditions(**header["conditions"])
    start_provider(conditions.provider)  # before memory and files are limited
    bundle = Bundle(stream.read(header["graph"]), stream.read(header["policy"]))
    live = from_bytes(stream.read())
    Sandbox(
        memory_bytes=conditions.memory_bytes,
        file_bytes=len(bundle.graph) + MIB,  # ONNX Runtime reads the graph from a file in memory
        gpu=conditions.provider != CPU,
    ).enter()
    try:
        policy = Policy.load(bundle, provider=conditions.provider, guard=Guard(conditions.inference_timeout_s))
        return examine(policy, live, conditions.max_batch_size, conditions.observation_s)
    except BundleError as error:
        return str(error)
    except MemoryError:
        return f"it needs more than {conditions.memory_bytes // MIB} MiB of memory"


if __name__ == "__main__":
    main()
