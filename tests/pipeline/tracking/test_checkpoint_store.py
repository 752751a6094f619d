"""A checkpoint in MLflow is complete or ignored, and only the newest are kept."""

import hashlib
import json
from pathlib import Path

import mlflow
import pytest

from pipeline.bundle.errors import CheckpointChanged, CheckpointDigestMissing
from pipeline.tracking import checkpoint_store
from pipeline.tracking import run as tracking
from pipeline.tracking.errors import NoCheckpoint


@pytest.fixture
def run_id(store):  # noqa: ARG001  # the store is where the run is
    with tracking.run("train") as run_id:
        yield run_id


@pytest.fixture
def upload(run_id, tmp_path):
    """Upload a checkpoint whose content is its number of environment steps."""
    directory = tmp_path / "work" / "bundle"
    (directory / "latest").mkdir(parents=True)

    def upload(env_steps):
        (directory / "latest" / "weights").write_text(str(env_steps))
        archive = tmp_path / "work" / "checkpoint.tar"
        checkpoint_store.pack(directory, archive, env_steps)
        checkpoint_store.upload(run_id, archive, print)

    return upload


def stored(run_id, name):
    return Path(mlflow.get_run(run_id).info.artifact_uri.removeprefix("file://")) / "checkpoints" / name


def files(run_id):
    return [each.path for each in mlflow.MlflowClient().list_artifacts(run_id, "checkpoints")]


def test_the_newest_checkpoint_is_restored_unchanged(run_id, upload, tmp_path):
    upload(1000)
    upload(20000)
    assert checkpoint_store.restore_newest(run_id, tmp_path / "back") == 20000
    assert (tmp_path / "back" / "latest" / "weights").read_text() == "20000"


def test_the_two_newest_are_kept(run_id, upload):
    for env_steps in (1000, 2000, 3000, 4000):
        upload(env_steps)
    assert sorted(files(run_id)) == [
        f"checkpoints/00000000{steps}.{suffix}" for steps in (3000, 4000) for suffix in ("json", "tar")
    ]


def test_an_archive_without_its_manifest_is_ignored(run_id, upload, tmp_path):
    upload(1000)
    upload(2000)
    manifest = stored(run_id, "000000002000.json")
    manifest.unlink()
    assert checkpoint_store.restore_newest(run_id, tmp_path / "back") == 1000


def test_an_incomplete_archive_is_ignored(run_id, upload, tmp_path):
    upload(1000)
    upload(2000)
    archive = stored(run_id, "000000002000.tar")
    archive.write_bytes(archive.read_bytes()[:100])
    assert checkpoint_store.restore_newest(run_id, tmp_path / "back") == 1000


def test_an_archive_of_the_same_size_with_other_bytes_is_ignored(run_id, upload, tmp_path):
    upload(1000)
    upload(2000)
    archive = stored(run_id, "000000002000.tar")
    archive.write_bytes(archive.read_bytes().replace(b"2000", b"2001"))
    assert checkpoint_store.restore_newest(run_id, tmp_path / "back") == 1000


def test_later_uploads_delete_an_archive_without_a_manifest(run_id, upload):
    upload(1000)
    manifest = stored(run_id, "000000001000.json")
    manifest.unlink()
    for env_steps in (2000, 3000):
        upload(env_steps)
    assert "checkpoints/000000001000.tar" not in files(run_id)


def test_a_run_without_a_checkpoint_is_an_error(run_id, tmp_path):
    with pytest.raises(NoCheckpoint, match="has no complete checkpoint to resume from"):
        checkpoint_store.restore_newest(run_id, tmp_path / "back")


def replace(run_id, name, archive_content):
    """Replace an archive in the artifact store together with its manifest, as whoever may write to the store can."""
    stored(run_id, f"{name}.tar").write_bytes(archive_content)
    manifest = json.loads(stored(run_id, "000000001000.json").read_text())
    manifest["sha256"] = hashlib.sha256(archive_content).hexdigest()
    stored(run_id, f"{name}.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("name", ["000000001000", "000000009000"], ids=["replaced", "added"])
def test_an_archive_with_its_manifest_is_refused_if_the_run_has_another_digest(name, trusted, run_id, upload, tmp_path):
    upload(1000)
    content = stored(run_id, "000000001000.tar").read_bytes().replace(b"1000", b"1001")
    replace(run_id, name, content)
    with pytest.raises(CheckpointChanged) as caught:
        checkpoint_store.restore_newest(run_id, tmp_path / "back", trusted=trusted)
    assert str(caught.value).startswith(f"checkpoints/{name}.tar of run {run_id} is not the file that was recorded")
    assert not (tmp_path / "back").exists(), "nothing was unpacked"


def test_a_run_without_digests_is_refused_unless_its_checkpoint_is_trusted(run_id, upload, tmp_path):
    upload(1000)
    mlflow.MlflowClient().delete_tag(run_id, "checkpoints.sha256")
    with pytest.raises(CheckpointDigestMissing, match=f"^Run {run_id} has no digest .*: --trust-checkpoint$"):
        checkpoint_store.restore_newest(run_id, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    assert checkpoint_store.restore_newest(run_id, tmp_path / "back", trusted=True) == 1000


def test_the_run_has_the_digests_of_the_archives_that_are_kept(run_id, upload):
    for env_steps in (1000, 2000, 3000):
        upload(env_steps)
    names = [f"00000000{steps}.tar" for steps in (2000, 3000)]
    expected = {name: hashlib.sha256(stored(run_id, name).read_bytes()).hexdigest() for name in names}
    assert json.loads(mlflow.get_run(run_id).data.tags["checkpoints.sha256"]) == expected
