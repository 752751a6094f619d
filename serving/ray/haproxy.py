"""Runs HAProxy with the configuration that Ray Serve generated, less what Serve leaves open, and failing over.

Serve calls it in place of the haproxy binary (`RAY_SERVE_HAPROXY_BINARY_PATH`), as a script: it may import
nothing but the standard library. It closes what has no setting:

- statistics page and Prometheus exporter listen on all interfaces: here on sockets beside the configuration,
- the admin socket is open to every user of the machine: here to this one,
- each request is logged, by UDP, to whoever listens on port 514: here errors are,
- each request is watched for a client that hangs up: here none is,
- a request reaches a replica before its body has come, and cannot be sent again when the replica dies: here it waits
  for its body (in the HTTP frontend only: bidirectional gRPC would hang),
- a replica that is gone is waited for, for seconds: here 100 ms, for replicas are near,
- each buffer is given back to the system after a request, and cleared before the next: here they are kept,
- a Serve that is killed leaves its haproxy behind, answering errors: here it goes with its parent.
"""

import ctypes
import os
import re
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1

UNWATCHED = "    http-request set-header x-request-disconnect-disabled ?1"
"""Serve watches each connection for its end, with two tasks per request. One header
tells it not to."""

BUFFERS_KEPT = "    tune.memory.hot-size 67108864"
"""Bytes per thread."""

EDITS = (
    (r"^(\s*stats socket \S+) mode \d+ ", r"\1 mode 600 "),
    (r"^(frontend prometheus\n\s*bind) .+$", r"\1 unix@{directory}/prom.sock mode 600"),
    (r"^(listen stats\n\s*bind) .+$", r"\1 unix@{directory}/stats.sock mode 600"),
    (r"^(\s*log \S+ local0) \w+$", r"\1 err"),
    (rf"^(?:{re.escape(UNWATCHED)}\n)?(\s*acl healthcheck path )", rf"{UNWATCHED}\n\1"),
    (r"^(frontend http_frontend\n)(?:    option http-buffer-request\n)?", r"\1    option http-buffer-request\n"),
    (r"^(\s*timeout connect) \w+$", r"\1 100ms"),
    (rf"^(global\n)(?:{BUFFERS_KEPT}\n)?", rf"\1{BUFFERS_KEPT}\n"),
)


def main(arguments: list[str]) -> None:
    """Edit the configuration named by `-f`, then become `arguments[0]`, to die with this process's parent."""
    configuration = Path(arguments[arguments.index("-f") + 1])
    original = configuration.read_text()
    configuration.write_text(edited(original, configuration.parent))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execv(arguments[0], arguments)  # noqa: S606 - Serve chose the binary and its arguments


def edited(configuration: str, directory: Path) -> str:
    """Return the configuration with nothing left open. Editing twice changes nothing more.

    Raises:
        SystemExit: a line to edit isn't there, so this Ray's template is not the one this was written for.
    """
    for pattern, replacement in EDITS:
        target = replacement.replace("{directory}", str(directory))
        configuration, count = re.subn(pattern, target, configuration, flags=re.MULTILINE)
        if count == 0:
            sys.exit(f"cannot make HAProxy private: its configuration has no line like {pattern}")
    return configuration


if __name__ == "__main__":
    main(sys.argv[1:])
