from pathlib import Path

import pytest
from click.testing import CliRunner

from serving.cli import main
from serving.client.errors import TokenFileInvalid
from serving.client.token_file import read_token

TOKEN = "0123456789abcdef-._~+/=="


def test_a_token_is_read_without_surrounding_whitespace(tmp_path: Path) -> None:
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
def test_a_file_without_a_token_is_rejected(tmp_path: Path, content: bytes | None, reason: str) -> None:
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
def test_a_command_reports_what_is_wrong_with_the_file(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--auth-token-file", "/nowhere/token"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: cannot read a bearer token from /nowhere/token: No such file or directory.")
