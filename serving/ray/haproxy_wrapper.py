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
- HAProxy keeps the replicas of an application while Serve builds its new release, and if it cannot. Serve names none
  then, and all requests would pass through its own proxy, one process on the head.
"""

import ctypes
import json
import os
import re
import signal
import stat
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1

REPLICAS = "replicas.json"
"""A file beside the configuration, with the lines of the replicas that each backend had last."""

PROBES_S = 2.0
"""The time for which replicas are asked whether they still serve."""

_BACKEND = re.compile(r"^backend (http-\S+)\n(?:[ \t].*\n|\n)+", re.MULTILINE)
_REPLICA = re.compile(r"^    server (?!SERVE_PROXY_ACTOR)\S+ (\S+):(\d+) .*\n", re.MULTILINE)
_FALLBACK = re.compile(r"^    # .*\n    server SERVE_PROXY_ACTOR", re.MULTILINE)
_HEALTH = re.compile(r"^(    option httpchk GET ).*$", re.MULTILINE)

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
    private = edited(configuration.read_text(), configuration.parent)
    configuration.write_text(with_replicas(private, configuration.parent))
    for status, error in ERRORS.items():
        (configuration.parent / f"error-{status}.http").write_text(error_response(*error), newline="")


def with_replicas(configuration: str, directory: Path) -> str:
    """Return the configuration with the last replicas of each HTTP backend that has none, if they still serve.

    HAProxy then checks that they do: another application's replica may get the port of one that has ended.
    """
    last, replicas = _last_replicas(directory), {}
    deadline = time.monotonic() + PROBES_S
    for section, name in [(backend[0], backend[1]) for backend in _BACKEND.finditer(configuration)]:
        replicas[name] = [each[0] for each in _REPLICA.finditer(section)]
        path = re.search(rf"^    acl is_{re.escape(name)} path (\S+)$", configuration, re.MULTILINE)
        if not replicas[name] and name in last and path:
            health = f"{path[1].rstrip('/')}/health"
            replicas[name] = [line for line in last[name] if _serves(line, health, deadline)]
            if replicas[name]:
                configuration = configuration.replace(section, _with(replicas[name], health, section))
    (directory / REPLICAS).write_text(json.dumps(replicas))
    return configuration


def _last_replicas(directory: Path) -> dict[str, list[str]]:
    try:
        return dict(json.loads((directory / REPLICAS).read_text()))
    except (OSError, ValueError):  # this is the first configuration, or the disk was full
        return {}


def _with(replicas: list[str], health: str, section: str) -> str:
    """Return the section of a backend with replicas before its fallback, whose path for health checks is `health`."""
    checked = _HEALTH.sub(rf"\g<1>{health}", section)
    return _FALLBACK.sub(lambda found: "".join(replicas) + found[0], checked)


def _serves(line: str, health: str, deadline: float) -> bool:
    """Return whether the replica of a line answers as one of this package, for this application."""
    import http.client

    replica = _REPLICA.match(line)
    remaining_s = deadline - time.monotonic()
    if replica is None or remaining_s <= 0:
        return False
    connection = http.client.HTTPConnection(replica[1], int(replica[2]), timeout=min(1.0, remaining_s))
    try:
        connection.request("GET", health)
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return answer.status == 200 and answer.getheader("X-Model-Version") is not None  # noqa: PLR2004


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
