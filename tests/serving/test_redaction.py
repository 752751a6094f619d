"""No message, log line, record or traceback shows the credentials of a URI."""

import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from serving.cli import main
from serving.errors import RedactingFormatter, ServingError, redacted
from serving.registry import registry
from serving.registry.last_known_good import LastKnownGood
from serving.registry.registry import _last_line
from tests.serving.store import Store
from tests.workshop import PROJECT, free_port

URI = "http://u:secret@127.0.0.1:1"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://u:secret@h:5000/x", "http://***@h:5000/x"),
        ("http://secret@h", "http://***@h"),
        ("http://u:se@cret@h/x", "http://***@h/x"),
        ("(postgresql+psycopg2://u:secr/et@h/db). Start", "(postgresql+psycopg2://***@h/db). Start"),
        ("postgresql://h/db?user=u&password=secret: refused", "postgresql://h/db?user=***&password=***: refused"),
        ("exceeded with url: /health?token=secret (Caused by", "exceeded with url: /health?token=*** (Caused by"),
        ("'https://h/x#access_token=secret'", "'https://h/x#access_token=***'"),
        ("http://u:secret@a http://v:secret@b/x", "http://***@a http://***@b/x"),
        ("{'Authorization': 'Basic dTpzZWNyZXQ=', 'Host': 'h'}", "{'Authorization': 'Basic ***', 'Host': 'h'}"),
        ("header Authorization: bearer 0123-secret", "header Authorization: bearer ***"),
    ],
)
def test_credentials_in_urls_are_hidden(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer TOKEN",
        "Basic authentication",
        "models:/m@champion",
        "http://h:5000/a@b",
        "http://[::1]:5000/a@b",
        "sqlite:////a/b.db",
        "a? b=c & d=e",
    ],
)
def test_texts_without_credentials_are_unchanged(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("MLFLOW_TRACKING_PASSWORD", "long-secret", "rejected long-secret."),
        ("AWS_SECRET_ACCESS_KEY", "long/secret+key", "signed with 'long/secret+key'"),
        ("MLFLOW_TRACKING_URI", "postgresql://u:long%40secret@h/db", "password: long@secret"),
        ("MLFLOW_TRACKING_URI", "postgresql://u:pass@longsecret@h/db", 'host name "longsecret@h" is unknown'),
    ],
)
def test_secrets_of_the_environment_are_hidden_wherever_they_occur(
    variable: str, value: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert "secret" not in redacted(text)


def test_a_secret_that_is_part_of_a_word_leaves_the_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "postgres")
    assert redacted("postgresql://h/postgres failed") == "postgresql://h/*** failed"


@dataclass(eq=False)
class Templated(ServingError):
    """An error with a template."""

    reason: str

    template = "failed: {reason}"


@dataclass(eq=False)
class Worded(ServingError):
    """An error with a message of its own."""

    reason: str

    def __str__(self) -> str:
        return f"failed: {self.reason}"


@pytest.mark.parametrize("kind", [Templated, Worded])
def test_the_message_of_every_error_is_one_line_without_credentials(kind: type[ServingError]) -> None:
    error = kind(f"cannot connect\n\x1b[2Jto {URI}")  # type: ignore[call-arg]
    assert str(error) == "failed: cannot connect [2Jto http://***@127.0.0.1:1"
    assert repr(error) == f"{kind.__name__}('failed: cannot connect [2Jto http://***@127.0.0.1:1')"


def test_a_message_that_is_cut_shows_no_half_of_a_password() -> None:
    assert "secret" not in _last_line(RuntimeError("x" * 285 + URI))


def test_a_log_record_hides_credentials_in_its_traceback() -> None:
    try:
        raise RuntimeError(f"cannot connect to {URI}")  # noqa: TRY301 - for its traceback
    except RuntimeError:
        record = logging.LogRecord("x", logging.ERROR, "x", 1, "%s failed", (URI,), sys.exc_info())
    shown = RedactingFormatter().format(record)
    assert "Traceback" in shown
    assert "secret" not in shown


def test_an_unexpected_exception_of_a_command_hides_credentials() -> None:
    script = "import sys; from serving.errors import print_traceback; sys.excepthook = print_traceback; 1 / 0 # "
    command = [sys.executable, "-c", script.replace("1 / 0", f"raise RuntimeError('{URI}')")]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.stderr.endswith("RuntimeError: http://***@127.0.0.1:1\n")


@pytest.mark.parametrize("option", [[], ["--traceback"]])
def test_the_command_shows_no_password_of_an_mlflow_that_is_down(
    option: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", URI)
    result = CliRunner().invoke(main, ["run", "--port", str(free_port()), *option])
    assert result.exit_code == 1
    assert "http://***@127.0.0.1:1" in result.output
    assert "secret" not in result.output


def test_the_record_of_a_version_holds_no_password(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = store.register("redacted")
    monkeypatch.setattr(registry, "_registry_uri", lambda: URI)
    version = registry.resolve(f"models:/redacted/{number}")
    good = LastKnownGood(tmp_path, URI, version.uri)
    good.save(version)
    assert good.load() == version
    assert "secret" not in next((tmp_path / "good").iterdir()).read_text()
    changed = URI.replace("secret", "another")
    assert LastKnownGood(tmp_path, changed, version.uri).load() == version, "it outlives a new password"
