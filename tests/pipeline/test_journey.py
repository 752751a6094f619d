"""The journey trains and promotes only what is missing, and reports a port that is taken or a command that fails."""

import json
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline import journey
from pipeline.journey import CommandFailed, PortTaken, VersionsNotListed


@pytest.fixture
def registry():
    """An HTTP server that answers MLflow's search for versions with the stages in its list."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            versions = [{"version": str(n), "current_stage": stage} for n, stage in enumerate(server.stages, 1)]
            body = server.body or json.dumps({"model_versions": versions} if versions else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.stages, server.body = [], b""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


class Commands(list):
    """The commands that ran, and the exit statuses of those that fail."""

    def __init__(self):
        super().__init__()
        self.statuses = {}


@pytest.fixture
def commands(monkeypatch, registry):
    """The commands that the journey would run; training registers a version, and those in `statuses` fail."""
    ran = Commands()

    def run(command):
        ran.append(command[3:])
        if status := ran.statuses.get(" ".join(command[3:])):
            raise CommandFailed(" ".join(command[3:]), status)
        if command[3] == "train":
            registry.stages.append("None")

    monkeypatch.setattr(journey, "run", run)
    return ran


def ensure_production(registry):
    journey._ensure_production(f"http://127.0.0.1:{registry.server_port}")


def test_without_a_version_one_is_trained_evaluated_and_promoted(registry, commands):
    ensure_production(registry)
    assert commands == [["train"], ["evaluate", "models:/cartpole-ppo/1"], ["promote", "1"]]


def test_the_newest_version_is_promoted_if_none_is_in_production(registry, commands):
    registry.stages = ["Archived", "None"]
    ensure_production(registry)
    assert commands == [["evaluate", "models:/cartpole-ppo/2"], ["promote", "2"]]


EVALUATE_2, PROMOTE_2, EVALUATE_3, PROMOTE_3 = (
    command for version in "23" for command in (["evaluate", f"models:/cartpole-ppo/{version}"], ["promote", version])
)


@pytest.mark.parametrize(
    ("fails", "tried"), [("promote 2", [EVALUATE_2, PROMOTE_2]), ("evaluate models:/cartpole-ppo/2", [EVALUATE_2])]
)
def test_if_the_newest_version_cannot_be_promoted_another_one_is_trained(registry, commands, fails, tried):
    registry.stages = ["Archived", "None"]
    commands.statuses = {fails: 1}
    ensure_production(registry)
    assert commands == [*tried, ["train"], EVALUATE_3, PROMOTE_3]


def test_a_trained_version_that_the_gate_rejects_ends_the_journey(registry, commands):
    registry.stages = ["None", "None"]
    commands.statuses = {"promote 2": 1, "promote 3": 1}
    with pytest.raises(CommandFailed, match="`promote 3` ended with exit status 1"):
        ensure_production(registry)
    assert commands.count(["train"]) == 1


def test_a_command_that_a_signal_ends_ends_the_journey(registry, commands):
    registry.stages = ["None"]
    commands.statuses = {"promote 1": -15}
    with pytest.raises(CommandFailed, match="`promote 1` ended with exit status -15"):
        ensure_production(registry)
    assert ["train"] not in commands


def test_a_version_in_production_is_served_as_it_is(registry, commands):
    registry.stages = ["Production", "None"]
    ensure_production(registry)
    assert not commands


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b'{"model_versions": 3}', b'{"model_versions": [{"version": "x"}]}']
)
def test_an_answer_of_mlflow_without_versions_is_named(registry, body):
    registry.body = body
    with pytest.raises(VersionsNotListed, match="did not list the versions"):
        ensure_production(registry)


def test_a_port_that_is_taken_is_reported_before_anything_starts():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"Port {port} is taken. Choose another: make run MLFLOW_PORT=PORT"):
            journey.journey(port, port, episodes=1)


def test_a_command_that_fails_is_reported_with_its_exit_status():
    with pytest.raises(CommandFailed) as caught:
        journey.run([sys.executable, "-c", "raise SystemExit(3)"])
    assert str(caught.value) == "`python -c 'raise SystemExit(3)'` ended with exit status 3."


def test_the_waiting_process_imports_neither_mlflow_nor_torch_nor_ray():
    script = "import sys, pipeline.journey; print({'ray', 'torch', 'mlflow', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
