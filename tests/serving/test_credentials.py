import logging
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from serving.cli import main
from serving.credentials import CredentialsFile, CredentialsFileInvalid

SECRET = "hunter2-is-secret"

CONTENT = """# of the registry
MLFLOW_TRACKING_USERNAME=robot
export MLFLOW_TRACKING_PASSWORD='p#a "s" = $HOME'

  AWS_SECRET_ACCESS_KEY="a+b/c=="
AWS_SESSION_TOKEN=
PGPASSWORD=x
REQUESTS_CA_BUNDLE=/etc/ca.pem
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty file of this user's, who is not root for the code under test."""
    file = tmp_path / "credentials"
    file.touch(0o600)
    if os.geteuid() == 0:
        os.chown(file, 12345, 12345)
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    return file


def write(file: Path, text: str | bytes) -> Path:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_values_are_the_rest_of_the_line_without_quotes_around_it(file: Path) -> None:
    assert CredentialsFile(write(file, CONTENT)).read() == {
        "MLFLOW_TRACKING_USERNAME": "robot",
        "MLFLOW_TRACKING_PASSWORD": 'p#a "s" = $HOME',
        "AWS_SECRET_ACCESS_KEY": "a+b/c==",
        "AWS_SESSION_TOKEN": "",
        "PGPASSWORD": "x",
        "REQUESTS_CA_BUNDLE": "/etc/ca.pem",
    }


def test_loading_sets_the_variables_of_the_process(file: Path) -> None:
    CredentialsFile(write(file, f"MLFLOW_TRACKING_TOKEN={SECRET}\r\n")).load()
    assert os.environ["MLFLOW_TRACKING_TOKEN"] == SECRET


@pytest.mark.parametrize(
    "line",
    [
        SECRET,
        f"{SECRET}==",
        f"PATH={SECRET}",
        f"LD_PRELOAD={SECRET}",
        f"PYTHONPATH={SECRET}",
        f"RAY_AUTH_TOKEN={SECRET}",
        f"MLFLOW_ TRACKING_TOKEN={SECRET}",
        f"MLFLOW_TRACKING_TOKEN: {SECRET}",
        f"mlflow_tracking_token={SECRET}",
        f'MLFLOW_TRACKING_TOKEN="{SECRET}',
        f"MLFLOW_TRACKING_TOKEN='{SECRET}\" # comment",
        f"MLFLOW_TRACKING_TOKEN={SECRET}\0",
    ],
)
def test_a_malformed_line_is_named_by_its_number_and_not_shown(file: Path, line: str) -> None:
    write(file, f"# a comment\n{line}\n")
    with pytest.raises(CredentialsFileInvalid) as caught:
        CredentialsFile(file).read()
    message = str(caught.value)
    assert message.startswith(f"the credentials file {file} cannot be used: line 2 ")
    assert SECRET not in message
    assert "\n" not in message
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o640, 0o620, 0o644])
def test_a_file_that_other_users_can_use_is_refused(file: Path, mode: int) -> None:
    write(file, f"MLFLOW_TRACKING_TOKEN={SECRET}").chmod(mode)
    with pytest.raises(CredentialsFileInvalid, match=rf"other users can use it \(mode {mode:04o}\)"):
        CredentialsFile(file).read()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of other users")


@needs_root
@pytest.mark.parametrize(("mode", "is_accepted"), [(0o400, True), (0o440, True), (0o460, False), (0o444, False)])
def test_a_secret_that_root_mounts_may_be_readable_by_the_group_of_the_pod(
    file: Path,
    mode: int,
    is_accepted: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    os.chown(write(file, "MLFLOW_TRACKING_TOKEN=x"), 0, 12345)
    file.chmod(mode)
    if is_accepted:
        assert CredentialsFile(file).read() == {"MLFLOW_TRACKING_TOKEN": "x"}
    else:
        with pytest.raises(CredentialsFileInvalid, match="other users can use it"):
            CredentialsFile(file).read()


@needs_root
def test_a_file_of_another_user_is_refused(file: Path) -> None:
    os.chown(file, 54321, 12345)
    with pytest.raises(CredentialsFileInvalid, match="it belongs to another user"):
        CredentialsFile(file).read()


def test_what_is_no_text_file_is_refused(file: Path, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    reasons = {
        tmp_path / "missing": "No such file or directory",
        pipe: "it is no regular file",
        Path("/dev/zero"): "it is no regular file",
        tmp_path: "Is a directory",
        write(file, b"MLFLOW_TRACKING_TOKEN=\xff"): "it is not UTF-8 text",
    }
    for path, reason in reasons.items():
        with pytest.raises(CredentialsFileInvalid) as caught:
            CredentialsFile(path).read()
        assert str(caught.value) == f"the credentials file {path} cannot be used: {reason}"


def test_a_changed_file_is_loaded_again(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    credentials = CredentialsFile(write(file, "MLFLOW_TRACKING_TOKEN=first"))
    credentials.load()
    os.environ["MLFLOW_TRACKING_TOKEN"] = "unchanged"
    credentials.load_if_changed()
    assert os.environ["MLFLOW_TRACKING_TOKEN"] == "unchanged"
    write(file, "MLFLOW_TRACKING_TOKEN=second")
    credentials.load_if_changed()
    assert os.environ["MLFLOW_TRACKING_TOKEN"] == "second"
    write(file, SECRET)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            credentials.load_if_changed()
    assert os.environ["MLFLOW_TRACKING_TOKEN"] == "second"
    (message,) = caplog.messages
    assert message.startswith(f"earlier credentials stay in use: the credentials file {file} cannot be used: line 1")
    assert SECRET not in message


def test_the_command_refuses_a_file_in_one_line_before_ray_starts(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["run", "--credentials-file", str(tmp_path / "missing")])
    assert result.exit_code == 1
    expected = f"Error: the credentials file {tmp_path}/missing cannot be used: No such file or directory\n"
    assert result.stderr == expected
