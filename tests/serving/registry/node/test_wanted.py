import json
from dataclasses import replace
from pathlib import Path

import pytest

from serving.errors import ServingError
from serving.policy.errors import BundleFileMissing
from serving.registry.errors import (
    RegistryError,
    RegistryFailed,
    TrackingServerUnreachable,
    VersionMissing,
)
from serving.registry.model_version import ModelVersion
from serving.registry.node.wanted import Outcome, WantedFile
from tests.serving.policies import CARTPOLE_BUNDLE, digest_tags

VERSION = ModelVersion(
    "models:/wanted/Production", "wanted", 7, "0123", "Production", digest_tags(CARTPOLE_BUNDLE), "http://registry"
)
ERRORS = [
    VersionMissing("wanted", "is in stage 'Production'", "Promote one."),
    RegistryFailed("http://user:secret@registry", "it is down"),
    TrackingServerUnreachable("http://user:secret@registry", "connection refused"),
    BundleFileMissing("model.onnx", "http://user:secret@registry", "no such file"),
]


def test_a_version_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = WantedFile(tmp_path, "scope")
    assert (file.signature(), file.read()) == (None, None)
    signature = file.write(Outcome(VERSION))
    assert signature == file.signature()
    found = WantedFile(tmp_path, "scope").read()
    assert found is not None
    assert (found.result(), found.error, found.is_recent) == (VERSION, None, True)
    assert file.write(Outcome(VERSION)) != signature
    assert [path.name for path in (tmp_path / "wanted").iterdir()] == ["scope.json"]
    assert (tmp_path / "wanted" / "scope.json").stat().st_mode & 0o077 == 0


def test_a_version_is_read_with_its_challenger(tmp_path: Path) -> None:
    version = replace(VERSION, challenger=replace(VERSION, version=8, tags={}))
    file = WantedFile(tmp_path, "scope")
    file.write(Outcome(version))
    found = file.read()
    assert found is not None
    assert found.result() == version


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_raised_with_the_same_message_and_without_its_password(error: ServingError, tmp_path: Path) -> None:
    file = WantedFile(tmp_path, "scope")
    file.write(Outcome.failed(error))
    found = file.read()
    assert found is not None
    with pytest.raises(RegistryError) as caught:
        found.result()
    assert str(caught.value) == str(error)
    assert isinstance(caught.value, VersionMissing) == isinstance(error, VersionMissing)
    assert not found.is_recent
    assert "secret" not in (tmp_path / "wanted" / "scope.json").read_text()


def test_an_unexpected_error_is_described_by_its_type_alone(tmp_path: Path) -> None:
    def fail() -> ModelVersion:
        raise KeyError("http://user:secret@registry")

    file = WantedFile(tmp_path, "scope")
    file.write(Outcome.of(fail))
    found = file.read()
    assert found is not None
    with pytest.raises(RegistryError, match=r"^KeyError; the log of process \d+, which polls, has the details$"):
        found.result()
    assert "secret" not in (tmp_path / "wanted" / "scope.json").read_text()


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"version": {"name": "wanted"}}, {"version": None, "error": {"type": "Unknown", "fields": {}}}],
    ids=str,
)
def test_a_file_that_this_release_cannot_read_is_ignored(change: dict[str, object], tmp_path: Path) -> None:
    file = WantedFile(tmp_path, "scope")
    file.write(Outcome(VERSION))
    path = tmp_path / "wanted" / "scope.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert file.read() is None
    path.write_text("{")
    assert file.read() is None
