"""Runs HAProxy with the configuration that Ray Serve generated, less what Serve leaves open, and failing over.

Serve calls it in place of the haproxy binary (`RAY_SERVE_HAPROXY_BINARY_PATH`), as a script: it may import
nothing but the standard library. It closes what has no setting:

- statistics page and Prometheus exporter listen on all interfaces: here on sockets beside the configuration,
- the admin socket is open to every user of the machine: here to this one,
- each request is logged, by UDP, to whoever listens on port 514: here errors are,
- each request is watched for a client that hangs up, though its answer takes less: here none is,
- a request reaches a replica before its body has come, and cannot be sent again when the replica dies: here it waits
  for its body (in the HTTP frontend only: bidirectional gRPC would hang),
- a replica that is gone is waited for, for seconds: here 100 ms, for replicas are near,
- an application whose last replica died is forgotten until the next one runs, and its requests get 404: here they go
  to Serve's own proxy meanwhile, which keeps them until there is one,
- a Serve that is killed leaves its haproxy behind, answering errors: here it goes with its parent.
"""

import ctypes
import json
import os
import re
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1

UNWATCHED = "    http-request set-header x-request-disconnect-disabled ?1"
"""Serve watches each connection for its end, with two tasks per request: more than an answer takes. One header
tells it not to."""

EDITS = (
    (r"^(\s*stats socket \S+) mode \d+ ", r"\1 mode 600 "),
    (r"^(frontend prometheus\n\s*bind) .+$", r"\1 unix@{directory}/prom.sock mode 600"),
    (r"^(listen stats\n\s*bind) .+$", r"\1 unix@{directory}/stats.sock mode 600"),
    (r"^(\s*log \S+ local0) \w+$", r"\1 err"),
    (rf"^(?:{re.escape(UNWATCHED)}\n)?(\s*acl healthcheck path )", rf"{UNWATCHED}\n\1"),
    (r"^(frontend http_frontend\n)(?:    option http-buffer-request\n)?", r"\1    option http-buffer-request\n"),
    (r"^(\s*timeout connect) \w+$", r"\1 100ms"),
)


def main(arguments: list[str]) -> None:
    """Edit the configuration named by `-f`, then become `arguments[0]`, to die with this process's parent."""
    configuration = Path(arguments[arguments.index("-f") + 1])
    known = configuration.with_name("applications.json")
    before = json.loads(known.read_text()) if known.exists() else {}
    original = configuration.read_text()
    applications = before | served_by(original)
    known.write_text(json.dumps(applications))
    configuration.write_text(edited(with_forgotten(original, applications), configuration.parent))
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


def served_by(configuration: str) -> dict[str, list[str]]:
    """Return, for each application that has replicas, the rules that lead to it, and it with Serve's proxy alone."""
    found = {}
    for match in re.finditer(r"^backend (\S+)\n((?:[ \t].*\n|\n)*)", configuration, flags=re.MULTILINE):
        name, lines = match[1], match[2].splitlines()
        rules = re.findall(
            rf"^    (?:acl is_{name} path.*|use_backend {name} if .*)$", configuration, flags=re.MULTILINE
        )
        fallback = [line.removesuffix(" check backup") for line in lines if line.endswith(" check backup")]
        if rules and fallback:
            others = [line for line in lines if line.strip() and not line.lstrip().startswith(("server ", "#"))]
            found[name] = ["\n".join(rules), "\n".join([f"backend {name}", *others, *fallback])]
    return found


def with_forgotten(configuration: str, applications: dict[str, list[str]]) -> str:
    """Return the configuration with the applications that it lacks."""
    for name, (rules, backend) in applications.items():
        if f"\nbackend {name}\n" not in configuration:
            configuration = configuration.replace(
                "    default_backend default_backend\n", f"{rules}\n    default_backend default_backend\n", 1
            )
            configuration = configuration.replace("\nlisten stats\n", f"\n{backend}\nlisten stats\n", 1)
    return configuration


if __name__ == "__main__":
    main(sys.argv[1:])
