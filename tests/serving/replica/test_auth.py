import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from serving.cli import main
from serving.client.client import PolicyClient
from serving.client.errors import RequestRefused
from serving.http.app import PolicyApp
from serving.replica.auth import OPEN_PATHS, BearerToken, read_token
from serving.replica.errors import TokenFileInvalid
from tests.serving.policies import ask, served

TOKEN = "s3cret-0123"
ONE = b'{"observation": [0.1, 0.2, 0.3, 0.4]}'


@pytest.fixture
def closed() -> PolicyApp:
    return PolicyApp(served(), token=BearerToken(TOKEN))


@pytest.mark.parametrize(
    ("authorization", "found"),
    [
        (None, "no token"),
        ("", "no token"),
        ("Bearer wrong", "a token other than the server's"),
        ("Bearer ", "a token other than the server's"),
        ("Basic s3cret-0123", "a token other than the server's"),
        ("s3cret-0123", "a token other than the server's"),
        ("Bearer s3cret-0123\u00e9", "a token other than the server's"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/model", "/openapi.json", "/nowhere"])
def test_without_its_token_nothing_is_told(closed: PolicyApp, path: str, authorization: str | None, found: str) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    answer = ask(closed, "POST", path, ONE, headers=headers)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    message = f"the request has {found}; send the header Authorization: Bearer TOKEN"
    assert answer.json() == {"error": {"code": "unauthorized", "message": message}}


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer  "])
def test_with_its_token_everything_is_as_ever(closed: PolicyApp, scheme: str) -> None:
    answer = ask(closed, body=ONE, headers={"authorization": scheme + TOKEN})
    assert (answer.status, answer.json()) == (200, {"action": 1})


def test_health_asks_no_token(closed: PolicyApp) -> None:
    assert ask(closed, "GET", "/health").status == 200
    assert all(ask(closed, "GET", path).status != 401 for path in OPEN_PATHS)


def test_the_token_is_in_no_representation() -> None:
    assert TOKEN not in repr(BearerToken(TOKEN))


def test_a_token_is_read_without_the_space_around_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert read_token(tmp_path / "token") == TOKEN


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b" \n", "it is empty"),
        (b"two words", "its content is not a token"),
        (b"\xff\xfe", "it is not ASCII text"),
    ],
)
def test_a_file_without_a_token_is_refused(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(TokenFileInvalid) as caught:
        read_token(file)
    assert str(caught.value) == (
        f"cannot read a bearer token from {file}: {reason}. Write one into it: "
        f"(umask 077 && openssl rand -hex 32 > {file})"
    )


@pytest.mark.parametrize("command", ["run", "query", "status"])
def test_a_command_says_what_is_wrong_with_the_file(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--auth-token-file", "/nowhere/token"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: cannot read a bearer token from /nowhere/token: No such file or directory.")


def test_clients_bring_the_token(closed: PolicyApp, serve_http: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    url = serve_http(closed)
    with PolicyClient(url, token=TOKEN) as client:
        assert client.act([0.1, 0.2, 0.3, 0.4]) == 1
    with PolicyClient(url) as client, pytest.raises(RequestRefused) as caught:
        client.model()
    assert (caught.value.status, caught.value.code) == (401, "unauthorized")
    by_variable = {"SERVING_AUTH_TOKEN_FILE": str(tmp_path / "token")}
    result = CliRunner().invoke(main, ["query", "--url", url, "--episodes", "1", "--quiet"], env=by_variable)
    assert result.exit_code == 0, result.output
    assert json.dumps(TOKEN) not in result.output
    result = CliRunner().invoke(main, ["status", "--url", url], env=by_variable)
    assert result.exit_code == 0, result.output
