"""Runs HAProxy with the configuration that Ray Serve generated, hardened and set up for retries.

Serve runs this script in place of the haproxy binary (`RAY_SERVE_HAPROXY_BINARY_PATH`). It may import only the
standard library. It changes what Serve has no setting for:

- The statistics page and the Prometheus exporter listen on sockets beside the configuration, not on all interfaces.
- Only this user can use the admin socket, not every user of the machine.
- Errors are logged to UDP port 514, not every request.
- Serve does not watch each request for a client that disconnects.
- HAProxy reads the whole body before it sends a request to a replica, so that it can send the request again if the
  replica dies. This applies to the HTTP frontend only: bidirectional gRPC would hang.
- Connecting to a replica times out after 100 ms, because replicas are near.
- HAProxy keeps its buffers between requests, instead of returning them to the system and clearing new ones.
- HAProxy ends with its parent. Otherwise it would outlive a Serve that is killed, and answer with errors.
"""

import ctypes
import os
import re
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1

DISCONNECT_DISABLED = "    http-request set-header x-request-disconnect-disabled ?1"
"""The header that stops Serve from watching a request's connection, which takes two tasks per request."""

KEEP_BUFFERS = "    tune.memory.hot-size 67108864"
"""Bytes per thread."""

EDITS = (
    (r"^(\s*stats socket \S+) mode \d+ ", r"\1 mode 600 "),
    (r"^(frontend prometheus\n\s*bind) .+$", r"\1 unix@{directory}/prom.sock mode 600"),
    (r"^(listen stats\n\s*bind) .+$", r"\1 unix@{directory}/stats.sock mode 600"),
    (r"^(\s*log \S+ local0) \w+$", r"\1 err"),
    (rf"^(?:{re.escape(DISCONNECT_DISABLED)}\n)?(\s*acl healthcheck path )", rf"{DISCONNECT_DISABLED}\n\1"),
    (r"^(frontend http_frontend\n)(?:    option http-buffer-request\n)?", r"\1    option http-buffer-request\n"),
    (r"^(\s*timeout connect) \w+$", r"\1 100ms"),
    (rf"^(global\n)(?:{KEEP_BUFFERS}\n)?", rf"\1{KEEP_BUFFERS}\n"),
)

PUBLIC_SECTIONS = ("frontend http_frontend", "frontend grpc_frontend")
"""The sections that listen where the user wants the server to."""

EXPOSED = re.compile(r"\s+bind (?!unix@\S+ mode 600$)|\s+stats socket (?!\S+ mode 600 )")


def main(arguments: list[str]) -> None:
    """Edit the configuration named by `-f`, and replace this process by HAProxy, which ends with its parent.

    The first argument is the path of the haproxy binary; the others are HAProxy's.
    """
    configuration = Path(arguments[arguments.index("-f") + 1])
    original = configuration.read_text()
    configuration.write_text(edited(original, configuration.parent))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execv(arguments[0], arguments)  # noqa: S606 - Serve chose the binary and its arguments


def edited(configuration: str, directory: Path) -> str:
    """Return the edited configuration. Editing it again changes nothing.

    Raises:
        SystemExit: A line to edit is missing, or another line exposes a listener: the template is not Ray 2.60's.
    """
    for pattern, replacement in EDITS:
        target = replacement.replace("{directory}", str(directory))
        configuration, count = re.subn(pattern, target, configuration, flags=re.MULTILINE)
        if count == 0:
            sys.exit(f"cannot make HAProxy private: its configuration has no line like {pattern}")
    section = ""
    for line in configuration.splitlines():
        section = line if line[:1].isalpha() else section
        if section not in PUBLIC_SECTIONS and EXPOSED.match(line):
            sys.exit(f"cannot make HAProxy private: its configuration has the line {line.strip()!r}")
    return configuration


if __name__ == "__main__":
    main(sys.argv[1:])
