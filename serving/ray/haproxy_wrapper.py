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
- A client has 10 s to send a request, body included. Otherwise slow clients could occupy all connections.
- HAProxy's own errors, and those of Serve's proxy while no replica runs, are JSON like those of a replica. If another
  attempt may succeed, their status is 503 with Retry-After.
- Every request has one X-Request-ID: the client's if it is valid, else a new one. Its response carries it, also if it
  is an error of HAProxy's own. Over gRPC it is metadata of the same name.
- HAProxy keeps its buffers between requests, instead of returning them to the system and clearing new ones.
- HAProxy ends with its parent. Otherwise it would outlive a Serve that is killed, and answer with errors.
"""

import ctypes
import json
import os
import re
import signal
import stat
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1

LOCKS = ("owner.lock", "node.lock")
"""Files in a directory that a server or a node made for itself; see `serving/ray/private_directory.py`."""

PROXY = "proxy.pid"
"""A file in a directory that Serve made, with the process of its proxy; see `describe`."""

DISCONNECT_DISABLED = "    http-request set-header x-request-disconnect-disabled ?1"
"""The header that stops Serve from watching a request's connection, which takes two tasks per request."""

KEEP_BUFFERS = "    tune.memory.hot-size 67108864"
"""Bytes per thread."""

REQUEST_WITHIN = "    timeout http-request 10s"
"""Without it a request may take `timeout client`, and again for each part of it."""

NO_PROBES = "    option http-ignore-probes"
"""Without it a connection on which a client sends nothing gets a 408, which a client may read as its next response."""

UNAVAILABLE = ("503 Service Unavailable", "unavailable", "no replica can answer; try again in a second")
ERRORS = {
    "400": ("400 Bad Request", "request_malformed", "the request is not valid HTTP, or its headers are too large"),
    "408": ("408 Request Time-out", "request_incomplete", "the request did not arrive within 10 s; send it faster"),
    # Serve would turn these into `500 Internal Server Error` as text.
    **dict.fromkeys(("500", "502", "503", "504"), UNAVAILABLE),
}
"""The status line, the code and the message of the response to each error that HAProxy finds after the headers.

Before their end, it answers in HTML.
"""


def _body(code: str, message: str) -> str:
    return json.dumps({"error": {"code": code, "message": message}}, separators=(",", ":"))


def _returned(status: str, code: str, message: str, headers: str = "") -> str:
    body = _body(code, message)
    return f"return status {status.split(maxsplit=1)[0]} content-type application/json string '{body}'{headers}"


RETRY_AFTER = " hdr Retry-After 1"
UNKNOWN = _returned("404", "path_unknown", "no application has this path; GET /-/routes lists the route prefixes")
STARTING = _returned(UNAVAILABLE[0], "unavailable", "the server is starting; try again in a second", RETRY_AFTER)
# The errors of a replica name its model. Those of Serve's proxy, to which HAProxy falls back, do not.
FALLBACK_FAILED = (
    f"    http-response {_returned(*UNAVAILABLE, RETRY_AFTER)} if {{ srv_name -m beg SERVE_PROXY_ACTOR }} "
    "{ status ge 400 } !{ res.hdr(x-model-version) -m found }"
)

ACCEPTED = "^[A-Za-z0-9._:+/=-]{1,128}$"
"""The request identifiers that are taken from clients, as in `serving/telemetry/request_ids.py`."""

# `fhdr` is the last header of the name, whole; `hdr` would be any part of it between commas.
_GIVEN = "    http-request set-var(txn.request_id) req.fhdr(x-request-id)\n"
_TAKEN = f"""\
    unique-id-format %[uuid]
    http-request set-var(txn.request_id) unique-id unless {{ var(txn.request_id) -m reg {ACCEPTED} }}
    http-request set-header X-Request-ID %[var(txn.request_id)]
    http-after-response set-header X-Request-ID %[var(txn.request_id)] if {{ var(txn.request_id) -m found }}
    http-after-response set-header X-Request-ID %[unique-id] unless {{ var(txn.request_id) -m found }}
"""
REQUEST_ID = _GIVEN + _TAKEN
# Serve reads and returns the identifier as metadata of another name.
GRPC_REQUEST_ID = f"""\
    http-request set-var(txn.request_id) req.fhdr(request_id)
    http-request set-var(txn.request_id) req.fhdr(x-request-id) if {{ req.fhdr(x-request-id) -m found }}
{_TAKEN}\
    http-request set-header request_id %[var(txn.request_id)]
"""

IN_FRONTEND = f"{FALLBACK_FAILED}\n    option http-buffer-request\n{REQUEST_ID}"
ERROR_FILES = "".join(f"    errorfile {status} {{directory}}/error-{status}.http\n" for status in ERRORS)

EDITS = (
    (r"^(\s*stats socket \S+) mode \d+ ", r"\1 mode 600 "),
    (r"^(frontend prometheus\n\s*bind) .+$", r"\1 unix@{directory}/prom.sock mode 600"),
    (r"^(listen stats\n\s*bind) .+$", r"\1 unix@{directory}/stats.sock mode 600"),
    (r"^(\s*log \S+ local0) \w+$", r"\1 err"),
    (rf"^(?:{re.escape(DISCONNECT_DISABLED)}\n)?(\s*acl healthcheck path )", rf"{DISCONNECT_DISABLED}\n\1"),
    (r"^(\s*timeout connect) \w+$", r"\1 100ms"),
    (rf"^(global\n)(?:{KEEP_BUFFERS}\n)?", rf"\1{KEEP_BUFFERS}\n"),
    (rf"^(\s*timeout client \w+\n)(?:{REQUEST_WITHIN}\n{NO_PROBES}\n)?", rf"\1{REQUEST_WITHIN}\n{NO_PROBES}\n"),
    (r"(?:^    errorfile \d+ \S+\n)+", ERROR_FILES),
    (rf"^(frontend http_frontend\n)(?:{re.escape(IN_FRONTEND)})?", rf"\1{IN_FRONTEND}"),
    (r"^(backend default_backend\n    http-request ).+$", rf"\1{UNKNOWN}"),
)

PUBLIC_SECTIONS = ("frontend http_frontend", "frontend grpc_frontend")
"""The sections that listen where the user wants the server to."""

EXPOSED = re.compile(r"\s+bind (?!unix@\S+ mode 600$)|\s+stats socket (?!\S+ mode 600 )")


def main(arguments: list[str]) -> None:
    """Edit the configuration named by `-f`, and replace this process by HAProxy, which ends with its parent.

    The first argument is the path of the haproxy binary; the others are HAProxy's.
    """
    configuration = Path(arguments[arguments.index("-f") + 1])
    edit(configuration)
    note_proxy(configuration.parents[1])
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execv(arguments[0], arguments)  # noqa: S606 - Serve chose the binary and its arguments


def edit(configuration: Path) -> None:
    """Edit a configuration file, and write the responses to errors beside it. Raises SystemExit as `edited`.

    Their directory becomes private. On a cluster Serve gives it the head's name on every node, and makes it there.
    """
    configuration.parent.chmod(stat.S_IRWXU)
    configuration.write_text(edited(configuration.read_text(), configuration.parent))
    for status, error in ERRORS.items():
        (configuration.parent / f"error-{status}.http").write_text(error_response(*error), newline="")


def note_proxy(directory: Path) -> None:
    """Note in a directory that Serve made which process uses it, so that a later start can remove it after its end."""
    if not any((directory / lock).exists() for lock in LOCKS):
        (directory / PROXY).write_text(describe(os.getppid()))


def describe(pid: int) -> str:
    """Return what no other process has: PID namespace, PID and start. Raises OSError if there is no such process."""
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]  # proc_pid_stat(5), field 22
    return f"{namespace} {pid} {start}"


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
    if "\n    use_backend " not in configuration:  # no application is deployed yet
        configuration = configuration.replace(UNKNOWN, STARTING)
    # Serve writes this frontend only if gRPC is on.
    grpc = rf"^(frontend grpc_frontend\n)(?:{re.escape(GRPC_REQUEST_ID)})?"
    configuration = re.sub(grpc, rf"\1{GRPC_REQUEST_ID}", configuration, flags=re.MULTILINE)
    section = ""
    for line in configuration.splitlines():
        section = line if line[:1].isalpha() else section
        if section not in PUBLIC_SECTIONS and EXPOSED.match(line):
            sys.exit(f"cannot make HAProxy private: its configuration has the line {line.strip()!r}")
    return configuration


def error_response(status: str, code: str, message: str) -> str:
    """Return the HTTP response with which HAProxy reports one of its errors."""
    body = _body(code, message)
    retry = ["Retry-After: 1"] if status.startswith("503") else []
    headers = ["Content-Type: application/json", f"Content-Length: {len(body)}", "Cache-Control: no-cache", *retry]
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", body])


if __name__ == "__main__":
    main(sys.argv[1:])
