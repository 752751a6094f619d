import subprocess
import sys
from pathlib import Path

import pytest

from serving.registry.node import file_lock
from serving.registry.node.file_lock import FileLock
from tests.workshop import PROJECT, await_true


def test_only_one_holds_the_lock_until_it_is_released(tmp_path: Path) -> None:
    one, other = FileLock(tmp_path / "locks/a"), FileLock(tmp_path / "locks/a")
    assert [one.acquire(), one.acquire(), other.acquire()] == [True, True, False]
    other.release()
    assert not other.acquire()
    one.release()
    assert other.acquire()
    assert not one.acquire()
    other.release()


def test_the_kernel_releases_the_lock_of_a_process_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from serving.registry.node.file_lock import FileLock\n"
        "print(FileLock.acquire(lock := FileLock(Path(sys.argv[1]))), flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "a")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        lock = FileLock(tmp_path / "a")
        assert not lock.acquire()
        holder.kill()
        await_true(lock.acquire, "the lock is free")
    lock.release()


def test_a_child_process_does_not_keep_the_lock_of_its_parent(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "a")
    assert lock.acquire()
    with subprocess.Popen(["sleep", "600"]) as child:
        lock.release()
        assert FileLock(tmp_path / "a").acquire()
        child.kill()


def test_a_lock_whose_file_another_process_deletes_meanwhile_is_not_acquired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = file_lock.fcntl.flock

    def delete_first(descriptor: int, operation: int) -> None:
        (tmp_path / "a").unlink()
        flock(descriptor, operation)

    lock = FileLock(tmp_path / "a")
    with monkeypatch.context() as racing:
        racing.setattr(file_lock.fcntl, "flock", delete_first)
        assert not lock.acquire()
    assert lock.acquire()
    lock.release()


def test_a_failing_lock_leaves_no_open_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("No locks available")

    monkeypatch.setattr(file_lock.fcntl, "flock", fail)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="No locks"):
        FileLock(tmp_path / "a").acquire()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_context_begins_without_the_lock_after_its_time_and_deletes_only_the_file_of_its_own_lock(
    tmp_path: Path,
) -> None:
    holder, late = FileLock(tmp_path / "a"), FileLock(tmp_path / "a")
    with holder.held(0):
        with late.held(0.1):
            pass
        assert (tmp_path / "a").exists()
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").touch()
    with FileLock(tmp_path / "file" / "a").held(60):
        pass  # the file system has no place for it
