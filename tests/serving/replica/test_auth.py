import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from serving.cli import main
from serving.client.client import PolicyClient
from serving.client.errors import RequestRefused
from serving.http.policy_app import PolicyApp
from serving.replica import auth
from serving.replica.auth import BearerToken
from serving.replica.errors import Unauthorized
from tests.serving.asking import ask, served

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
def test_a_request_without_the_token_gets_the_challenge(
    closed: PolicyApp, path: str, authorization: str | None, found: str
) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    answer = ask(closed, "POST", path, ONE, headers=headers)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    message = f"the request has {found}; send the header Authorization: Bearer TOKEN"
    assert answer.json() == {"error": {"code": "unauthorized", "message": message}}


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer  "])
def test_a_request_with_the_token_is_answered(closed: PolicyApp, scheme: str) -> None:
    answer = ask(closed, body=ONE, headers={"authorization": scheme + TOKEN})
    assert (answer.status, answer.json()) == (200, {"action": 1})


OPEN = ["/health", "/ping", "/v2/health/live", "/v2/health/ready", "/play", "/docs"]
CLOSED = [
    "/",
    "/model",
    "/openapi.json",
    "/play/events",
    "/play/anything",
    "/docs/anything",
    "/health/anything",
    "/invocations",
    "/version",
    "/v2",
    "/v2/health",
    "/v2/models/cartpole-ppo",
    "/v2/models/cartpole-ppo/ready",
    "/v2/models/cartpole-ppo/infer",
    "/v2/models/cartpole-ppo/versions/3/infer",
    "/nowhere",
]


@pytest.mark.parametrize("path", OPEN)
@pytest.mark.parametrize("slash", ["", "/"])
def test_probes_and_pages_need_no_token(closed: PolicyApp, path: str, slash: str) -> None:
    assert ask(closed, "GET", path + slash).status == 200


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_other_path_needs_a_token(closed: PolicyApp, method: str, path: str) -> None:
    assert ask(closed, method, path, ONE).status == 401


def test_every_described_path_is_open_or_closed_here() -> None:
    described = ask(PolicyApp(served()), "GET", "/openapi.json").json()["paths"]
    assert {path.replace("{version}", "3") for path in described} - {
        f"/v2/models/cartpole-ppo/versions/3{action}" for action in ("", "/ready")
    } <= {*OPEN, *CLOSED}


def test_the_token_is_in_no_representation() -> None:
    assert TOKEN not in repr(BearerToken(TOKEN))


NEW = "another-token-4567"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that moves the clock by seconds."""
    now = [1000.0]
    monkeypatch.setattr(auth, "monotonic", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


def accepts(token: BearerToken, text: str) -> bool:
    try:
        token.check("/model", [(b"authorization", b"Bearer " + text.encode())])
    except Unauthorized:
        return False
    return True


@pytest.mark.parametrize("way", ["written", "replaced", "linked"])
def test_the_token_is_read_again_when_its_file_changes(
    way: str, tmp_path: Path, clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    file, other = tmp_path / "token", tmp_path / "other"
    other.write_text(f"{NEW}\n")
    if way == "linked":  # as Kubernetes mounts a secret
        (tmp_path / "old").write_text(TOKEN)
        file.symlink_to(tmp_path / "old")
    else:
        file.write_text(TOKEN)
    token = BearerToken.from_file(file)
    clock(1)
    assert accepts(token, TOKEN)
    if way == "written":
        file.write_text(NEW)
    elif way == "replaced":
        other.rename(file)
    else:
        (tmp_path / "link").symlink_to(other)
        (tmp_path / "link").rename(file)
    clock(0.9)
    assert accepts(token, TOKEN), "a request reads the file's state only if a second has passed"
    clock(0.1)
    assert (accepts(token, NEW), accepts(token, TOKEN)) == (True, False)
    assert [record.getMessage() for record in caplog.records] == [
        f"{file} has changed: requests must carry the new bearer token"
    ]


@pytest.mark.parametrize("fault", ["empty", "gone", "two words", "directory"])
def test_a_file_without_a_token_leaves_the_old_token_valid_and_warns_once(
    fault: str, tmp_path: Path, clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    token = BearerToken.from_file(file)
    clock(1)
    assert accepts(token, TOKEN)
    if fault in ("gone", "directory"):
        file.unlink()
        if fault == "directory":
            file.mkdir()
    else:
        file.write_text("" if fault == "empty" else f"{NEW} {NEW}")
    for _ in range(3):
        clock(1)
        assert accepts(token, TOKEN)
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().startswith("the bearer token that was read before stays valid: cannot read a")
    assert NEW not in caplog.text
    assert TOKEN not in caplog.text
    if fault == "directory":
        file.rmdir()
    file.write_text(NEW)
    clock(1)
    assert accepts(token, NEW)


def test_clients_send_the_token(closed: PolicyApp, serve_http: Any, tmp_path: Path) -> None:
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
