"""Any server may answer at a URL: the commands end with one line, and run no code that it names."""

import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import gymnasium
import pytest
from click.testing import CliRunner, Result

from serving.cli import main
from serving.client.core import BaseClient
from serving.commands import status
from tests.serving.faulty_server import faulty_server

CARTPOLE = {"id": "CartPole-v1", "kwargs": {}}
MODEL = {
    "name": "cartpole-ppo",
    "version": 3,
    "model_uri": "models:/cartpole-ppo/3",
    "stage": None,
    "environment": CARTPOLE,
    "replica": {"id": "a", "of": 1, "answered": 1, "errors": 0},
    "last_refresh": None,
    "refresh_error": None,
    "refused": None,
    "degraded": False,
    "swaps": 0,
}


class Scripted(ThreadingHTTPServer):
    """A server that answers `/model` and requests for actions with given bodies."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.model: Any = MODEL
        self.answer: Any = {"action": 1}
        self.headers = {"X-Model-Version": "3"}
        self.status = 200


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_GET(self) -> None:
        self._send(self.server.model)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._send(self.server.answer)

    def _send(self, content: Any) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(self.server.status)
        for name, value in {**self.server.headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    monkeypatch.setattr(status, "INTERVAL_S", 0.01)
    with Scripted() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def invoke(command: str, url: str, *options: str) -> Result:
    return CliRunner().invoke(main, [command, "--url", url, *options])


def assert_one_line(result: Result) -> str:
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1), result.output
    assert result.stderr.startswith("Error: ")
    assert "\x1b[2J" not in result.output
    return result.stderr


BODIES = [
    b"",
    b"<html>",
    b"\xff\xfe",
    b"[" * 100_000,
    b"9" * 10_000,
    [],
    None,
    7,
    {},
    {**MODEL, "name": 7},
    {**MODEL, "environment": None, "replica": None},
    {**MODEL, "environment": {"id": ["CartPole-v1"], "kwargs": []}, "replica": {**MODEL["replica"], "of": "two"}},  # type: ignore[dict-item]
    {**MODEL, "environment": {**CARTPOLE, "wrappers": 3}, "replica": {**MODEL["replica"], "of": 10**9}},  # type: ignore[dict-item]
    {**MODEL, "environment": {**CARTPOLE, "kwargs": {"nope": 1}}, "refused": "yes"},
]


@pytest.mark.parametrize("command", ["query", "status"])
@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body)[:40])
def test_a_description_that_no_policy_server_sends_is_one_line(server: Scripted, command: str, body: Any) -> None:
    server.model = body
    assert_one_line(invoke(command, server.url))


@pytest.mark.parametrize(
    "online",
    [7, {"three": {}}, {"3": {"episodes": 0, "return_mean": 1.0, "length_mean": None, "length_count": 0}}],
    ids=str,
)
def test_episodes_that_no_policy_server_sends_are_one_line(server: Scripted, online: Any) -> None:
    server.model = {**MODEL, "online": online}
    assert "online" in assert_one_line(invoke("status", server.url))


@pytest.mark.parametrize("body", [b"<html>", [], {"error": "no"}, {"error": {}}, {"error": {"message": ["\x1b[2J"]}}])
def test_an_error_that_no_policy_server_sends_is_one_line(server: Scripted, body: Any) -> None:
    server.status, server.model = 422, body
    assert_one_line(invoke("query", server.url))


@pytest.mark.parametrize("version", ["", "three", "-1", "9" * 5000, "\u00b2"])
def test_a_version_that_is_no_number_is_that_of_another_server(server: Scripted, version: str) -> None:
    server.headers = {"X-Model-Version": version}
    assert "HTTP status 200 from another server" in assert_one_line(invoke("query", server.url))


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        {"action": None},
        {"action": 1, "states": ["a", "b"]},
        {"actions": 1},
        {"actions": [1, 1, 1]},
        {"actions": [1, 1], "states": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("option", ["--one-by-one", "--lockstep"])
def test_actions_that_no_policy_server_sends_are_one_line(server: Scripted, answer: Any, option: str) -> None:
    server.answer = answer
    line = assert_one_line(invoke("query", server.url, "--episodes", "2", "--quiet", option))
    assert "with a body that is not a policy server's" in line


@pytest.mark.parametrize("action", ["left", 7, [1], {"a": 1}], ids=repr)
def test_an_action_of_another_space_is_one_line(server: Scripted, action: Any) -> None:
    server.answer = {"action": action}
    assert "the environment 'CartPole-v1' failed: step 1 of episode 1" in assert_one_line(invoke("query", server.url))


@pytest.mark.parametrize("command", ["query", "status"])
def test_a_server_that_never_answers_is_one_line(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"timeout_s": 0.1, "total_timeout_s": 0.2}
    monkeypatch.setattr(BaseClient.__init__, "__kwdefaults__", {**BaseClient.__init__.__kwdefaults__, **limits})
    with faulty_server("hang", "hang", "hang") as hanging:
        assert "(no answer in time)" in assert_one_line(invoke(command, hanging.url))


def test_texts_of_the_server_control_neither_the_terminal_nor_the_layout(server: Scripted) -> None:
    replica = {"id": "[/red]\x1b[2J", "of": 1, "answered": 1, "errors": 0}
    server.model = {**MODEL, "name": "[bold]\x1b[2J", "refresh_error": "a\nb\x1b[2J", "replica": replica}
    shown = invoke("status", server.url)
    assert shown.exit_code == 0, shown.output
    assert "\x1b" not in shown.output
    assert "[/red] [2J" in shown.output


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module that can be imported and must not be."""
    (tmp_path / "trapped.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Trap-v0', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=2)\n"
        "Wrapper = gymnasium.Wrapper\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "trapped"
    sys.modules.pop("trapped", None)
    gymnasium.registry.pop("Trap-v0", None)


NAMED = [
    {"id": "trapped:Trap-v0", "kwargs": {}},
    {"id": "CartPole-v1", "kwargs": {}, "wrappers": ["trapped:Wrapper"]},
    {"id": "GymV26Environment-v0", "kwargs": {"env_id": "trapped:Trap-v0"}},
    {"id": "gym:trapped:Trap-v0", "kwargs": {}},
    {"id": "trapped; rm -rf ~:Trap-v0", "kwargs": {}},
]
REMEDIES = ["trapped", "trapped", "shimmy,trapped", "gym,trapped", "'trapped; rm -rf ~'"]


@pytest.mark.parametrize(("environment", "modules"), zip(NAMED, REMEDIES, strict=True))
def test_query_imports_nothing_that_the_server_names(
    server: Scripted, trap: str, environment: Any, modules: str
) -> None:
    server.model = {**MODEL, "environment": environment}
    line = assert_one_line(invoke("query", server.url))
    assert f"If you trust it, add --environment-modules {modules}; or name the environment" in line
    assert trap not in sys.modules


@pytest.mark.parametrize("environment", NAMED[:2], ids=lambda environment: environment["id"])
@pytest.mark.parametrize("option", ["--allow-import", "--environment-modules=other,trapped"])
def test_modules_that_the_user_allows_are_imported(server: Scripted, trap: str, environment: Any, option: str) -> None:
    server.model = {**MODEL, "environment": environment}
    result = invoke("query", server.url, option, "--episodes", "1", "--quiet")
    assert result.exit_code == 0, result.output
    assert trap in sys.modules


def test_an_allowed_module_does_not_allow_others_whose_names_begin_alike(server: Scripted, trap: str) -> None:
    server.model = {**MODEL, "environment": NAMED[0]}
    assert "trapped" in assert_one_line(invoke("query", server.url, "--environment-modules", "trap"))
    assert trap not in sys.modules


def test_an_environment_that_the_user_names_is_imported(server: Scripted, trap: str) -> None:
    server.model = {**MODEL, "environment": NAMED[1]}
    result = invoke("query", server.url, "--env-id", "trapped:Trap-v0", "--episodes", "1", "--quiet")
    assert result.exit_code == 0, result.output
    assert trap in sys.modules
