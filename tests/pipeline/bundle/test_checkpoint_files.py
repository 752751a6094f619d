"""A checkpoint is read only if its files are those that were registered."""

import hashlib
import pickle
import re
import shutil
import subprocess
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner

from pipeline.bundle import checkpoint_files, mlflow_flavor
from pipeline.bundle.errors import CheckpointChanged, CheckpointDigestMissing
from pipeline.cli import cli
from pipeline.tracking import run as tracking
from pipeline.training import warm_start
from serving.registry.registry import resolve
from tests.pipeline.marking import pickle_that_creates

MODULE = "checkpoint/learner_group/learner/rl_module/default_policy"
PICKLE = f"{MODULE}/class_and_ctor_args.pkl"


@pytest.fixture
def registered(store, assembled, cartpole):  # noqa: ARG001  # the store is the current one
    """The directory of version 1 in the artifact store."""
    directory, _ = assembled
    with tracking.run("train") as run_id:
        model_id = mlflow_flavor.log(directory, cartpole, run_id, step=0)
        mlflow_flavor.register(directory, model_id, "cartpole-ppo", {}, "")
    return Path(mlflow.artifacts.download_artifacts(f"models:/{model_id}"))  # of a local store, it is the store's own


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "code-ran"


def download(directory, **options):
    return checkpoint_files.download(resolve("models:/cartpole-ppo/1"), directory, **options)


def test_the_checkpoint_is_downloaded_unchanged(registered, assembled, tmp_path):
    found = download(tmp_path / "got")
    assert checkpoint_files.manifest_of(found) == checkpoint_files.manifest_of(assembled[0] / "checkpoint")
    tag = mlflow.MlflowClient().get_model_version("cartpole-ppo", "1").tags["sha256.checkpoint.sha256"]
    assert tag == hashlib.sha256((registered / "checkpoint.sha256").read_bytes()).hexdigest()


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_sha256sum_checks_the_list_of_the_files(registered):
    command = ["sha256sum", "--check", "--strict", "checkpoint.sha256"]
    done = subprocess.run(command, cwd=registered, capture_output=True, text=True, check=True)
    assert f"{PICKLE}: OK" in done.stdout


def test_the_pickle_of_the_test_runs_code(marker):
    pickle.loads(pickle_that_creates(marker))
    assert marker.exists()


@pytest.mark.parametrize("command", [["verify", "models:/cartpole-ppo/1"], None], ids=["verify", "--from"])
def test_a_replaced_pickle_is_refused_by_name_and_not_read(command, registered, marker, cartpole, tmp_path):
    (registered / PICKLE).write_bytes(pickle_that_creates(marker))
    expected = f"{PICKLE} of version 1 of 'cartpole-ppo' is not the file that was recorded"
    if command is None:
        with pytest.raises(CheckpointChanged) as caught:
            warm_start.download("models:/cartpole-ppo/1", cartpole, tmp_path / "got")
        assert str(caught.value).startswith(expected)
    else:
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"Error: {expected}")
    assert not marker.exists()


def test_a_replaced_pickle_is_refused_although_the_list_was_replaced_too(registered, marker, tmp_path):
    (registered / PICKLE).write_bytes(pickle_that_creates(marker))
    (registered / "checkpoint.sha256").write_bytes(checkpoint_files.manifest_of(registered / "checkpoint"))
    with pytest.raises(CheckpointChanged, match=r"^checkpoint\.sha256 of version 1"):
        download(tmp_path / "got")


def test_an_added_file_is_refused(registered, marker, tmp_path):
    """`load_filter` reads this one if it exists."""
    added = "checkpoint/env_runner/env_to_module_connector/MeanStdFilter/state.pkl"
    (registered / added).parent.mkdir(parents=True)
    (registered / added).write_bytes(pickle_that_creates(marker))
    with pytest.raises(CheckpointChanged, match=f"^{added} of version 1"):
        download(tmp_path / "got")


def test_a_removed_file_is_refused(registered, tmp_path):
    (registered / PICKLE).unlink()
    with pytest.raises(CheckpointChanged, match=f"^{PICKLE} of version 1"):
        download(tmp_path / "got")


@pytest.mark.parametrize("name", ["a\nb", "a\\b", "link"])
def test_a_link_and_a_name_that_could_forge_a_line_of_the_list_are_refused(name, tmp_path):
    if name == "link":
        (tmp_path / name).symlink_to("/etc/hostname")
    else:
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=re.escape(name)):
        checkpoint_files.manifest_of(tmp_path)


@pytest.mark.usefixtures("registered")
def test_a_version_without_a_digest_is_refused_unless_its_checkpoint_is_trusted(tmp_path):
    mlflow.MlflowClient().delete_model_version_tag("cartpole-ppo", "1", "sha256.checkpoint.sha256")
    with pytest.raises(CheckpointDigestMissing) as caught:
        download(tmp_path / "refused")
    assert str(caught.value) == (
        "Version 1 of 'cartpole-ppo' has no digest of its checkpoint, so a change could not be noticed, and reading a "
        "checkpoint runs the code in it. If you trust everyone who can write to the artifact store: --trust-checkpoint"
    )
    assert not (tmp_path / "refused").exists(), "nothing was downloaded"
    assert (download(tmp_path / "got", trusted=True) / "learner_group").is_dir()


def test_trust_accepts_no_changed_file(registered, marker, tmp_path):
    (registered / PICKLE).write_bytes(pickle_that_creates(marker))
    with pytest.raises(CheckpointChanged):
        download(tmp_path / "got", trusted=True)
