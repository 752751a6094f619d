"""Tries a bundle in a process of its own, with limits on memory and time, before it comes near requests.

A graph may loop for ever, ask for 20 GB or crash its runtime. It does so here, in a child that has imported no more
than a policy needs:

    python -m serving.rollout.trial < header, graph, policy.json    ->    {"error": null}
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from serving.policy.policy import Bundle
from serving.processes import NICENESS, child_environment, end_with_parent
from serving.rollout.errors import CandidateRefused

GIB = 1 << 30


@dataclass(frozen=True)
class Limits:
    """What a candidate may take."""

    memory_bytes: int = GIB
    """Beyond what the child holds before it looks at the bundle."""
    timeout_s: float = 15.0
    """From the start of the child to its verdict."""


def check(bundle: Bundle, limits: Limits) -> None:
    """Load the bundle and run it once, in a child.

    Raises:
        CandidateRefused: it did not load, did not run, or went beyond the limits.
    """
    header = json.dumps({"graph": len(bundle.graph), "memory_bytes": limits.memory_bytes}).encode()
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=b"\n".join([header, bundle.graph + bundle.policy]),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment(),
            timeout=limits.timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CandidateRefused(f"it did not load and answer within {limits.timeout_s:g} s") from None
    error = _verdict(done, limits)
    if error is not None:
        raise CandidateRefused(error)


def _verdict(done: "subprocess.CompletedProcess[bytes]", limits: Limits) -> str | None:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        error = json.loads(done.stdout)["error"]
        return None if error is None else str(error)
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return f"loading it ended its process ({name}), with {limits.memory_bytes >> 20} MiB allowed"
    return f"loading it ended its process with status {done.returncode}"


def main() -> None:
    """Try the bundle on stdin, say on stdout what is wrong with it, and leave at once."""
    end_with_parent()
    os.nice(NICENESS)
    print(json.dumps({"error": _try(sys.stdin.buffer)}), flush=True)  # noqa: T201 - to the parent
    os._exit(0)  # a runtime that was refused memory need not come down well


def _try(stream: BinaryIO) -> str | None:
    import onnxruntime  # noqa: F401 - before memory is limited

    from serving.errors import ServingError
    from serving.policy.policy import Policy

    header = json.loads(stream.readline())
    bundle = Bundle(stream.read(header["graph"]), stream.read())
    _limit_memory(header["memory_bytes"])
    try:
        Policy.load(bundle)
    except ServingError as error:
        return str(error)
    except MemoryError:
        return f"it needs more than {header['memory_bytes'] >> 20} MiB"
    return None


def _limit_memory(allowed: int) -> None:
    """Allow that many bytes beyond what this process holds now."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    status = Path("/proc/self/status")
    if status.exists():  # elsewhere than on Linux, time is the only limit
        held = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmData"))
        limit = held * 1024 + allowed
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


if __name__ == "__main__":
    main()
