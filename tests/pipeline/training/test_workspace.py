"""A workspace holds the files of one training below one directory."""

from pipeline.training.loop_state import LoopState
from pipeline.training.workspace import Workspace


def test_a_temporary_workspace_is_empty_and_is_deleted():
    with Workspace.temporary() as workspace:
        assert list(workspace.root.rglob("*")) == [workspace.bundle]
    assert not workspace.root.exists()


def test_the_archive_and_the_recording_are_outside_the_directory_that_is_archived(tmp_path):
    workspace = Workspace(tmp_path)
    assert workspace.latest.parent == workspace.best.parent == workspace.bundle
    assert workspace.archive.parent == workspace.recording.parent == tmp_path


def test_the_state_of_a_loop_is_restored_from_its_file(tmp_path):
    state = LoopState(env_steps=3000, best_mean=12.5, returns=[1.0, 2.0])
    state.write(tmp_path)
    assert LoopState.read(tmp_path) == state
