import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from serving.experience.conversion import supervisor
from serving.experience.conversion.backlog import complete_segments
from serving.experience.conversion.supervisor import LOCK_FILE, ConverterSupervisor
from serving.experience.journal.segment import SUFFIX
from serving.processes import child_environment
from serving.registry.node.file_lock import FileLock
from tests.serving.experience.conversion.journals import Actor, identities, put_into_cache, simple_segment
from tests.serving.policies import EXPLORING_BUNDLE
from tests.workshop import await_true

REPLICA = """
import sys, time
from pathlib import Path
from serving.experience.conversion.supervisor import ConverterSupervisor

supervisor = ConverterSupervisor(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
while True:
    supervisor.tick()
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def actor() -> Actor:
    return Actor(EXPLORING_BUNDLE)


@pytest.fixture
def paths(tmp_path, actor) -> tuple[Path, str, Path]:
    put_into_cache(tmp_path / "cache", actor.name, actor.number, actor.bundle)
    return tmp_path / "journal", str(tmp_path / "store"), tmp_path / "cache"


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.e2e
def test_the_converter_dies_with_its_replica_and_another_replica_takes_over(paths, actor):
    replicas = [
        subprocess.Popen([sys.executable, "-c", REPLICA, *map(str, paths)], env=child_environment()) for _ in range(2)
    ]
    try:
        for number in range(2):
            path = simple_segment(paths[0], number, actor)
            await_true(lambda: not path.exists(), "the segment is converted")  # noqa: B023
            found = [(each, psutil.Process(each.pid).children()) for each in replicas if each.poll() is None]
            ((replica, (converter,)),) = [pair for pair in found if pair[1]]
            replica.kill()
            replica.wait()
            await_true(lambda: is_gone(converter.pid), "the converter is gone")  # noqa: B023
    finally:
        for replica in replicas:
            replica.kill()
            replica.wait()
    assert len(identities(Path(paths[1]))) == 20


def test_a_converter_that_was_killed_is_started_again_after_a_pause(paths, caplog):
    watched = ConverterSupervisor(*paths)
    watched.tick()
    first = watched.pid
    os.kill(first, signal.SIGKILL)
    await_true(lambda: is_gone(first), "it is gone")
    watched.tick()
    assert watched.pid is None
    assert caplog.messages == ["the converter of experience ended with status -9; it is started again in 1 s"]
    await_true(lambda: watched.tick() or watched.pid, "it is started again", 10)
    assert watched.pid != first
    watched.stop()


def test_the_pause_doubles_with_each_end_up_to_the_longest(paths, caplog, monkeypatch):
    monkeypatch.setattr(supervisor.sys, "executable", "/bin/false")
    now = 0.0
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: now)
    watched = ConverterSupervisor(*paths)
    while len(caplog.messages) < 8:
        watched.tick()
        now += 0.25
        if watched.pid is not None:
            watched._process.wait()
    pauses = [message.rpartition(" in ")[2] for message in caplog.messages]
    assert pauses == ["1 s", "2 s", "4 s", "8 s", "16 s", "32 s", "60 s", "60 s"]


def test_a_command_that_cannot_be_started_is_logged(paths, caplog, monkeypatch):
    monkeypatch.setattr(supervisor.sys, "executable", "/no/python")
    watched = ConverterSupervisor(*paths)
    watched.tick()
    watched.tick()
    (message,) = caplog.messages
    assert message.startswith("the converter cannot be started: [Errno 2]")


def test_only_one_supervisor_of_a_journal_runs_a_converter(paths):
    one, other = ConverterSupervisor(*paths), ConverterSupervisor(*paths)
    one.tick()
    other.tick()
    assert (one.pid is None, other.pid) == (False, None)
    one.stop()
    other.tick()
    assert other.pid is not None
    other.stop()


@pytest.mark.e2e
def test_stopping_converts_what_is_complete_and_frees_the_lock(paths, actor):
    watched = ConverterSupervisor(*paths)
    simple_segment(paths[0], 1, actor)
    watched.tick()
    await_true(lambda: not complete_segments(paths[0]), "the first is converted")
    simple_segment(paths[0], 2, actor)
    watched.stop()
    assert not list(paths[0].glob(f"*{SUFFIX}"))
    assert len(identities(Path(paths[1]))) == 20
    assert watched.pid is None
    assert FileLock(paths[0] / LOCK_FILE).acquire()


def test_a_journal_that_cannot_be_locked_is_logged_once(paths, caplog):
    paths[0].write_text("a file where the journal should be")
    watched = ConverterSupervisor(*paths)
    watched.tick()
    watched.tick()
    (message,) = caplog.messages
    assert message.startswith("no decision is converted on this node: the journal cannot be locked (")


def test_no_secret_is_in_the_arguments_of_the_process(paths, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-s3")
    watched = ConverterSupervisor(*paths)
    watched.tick()
    started = psutil.Process(watched.pid)
    await_true(started.cmdline, "the kernel has its arguments")
    command = started.cmdline()
    watched.stop()
    assert command[1:3] == ["-m", "serving.experience.conversion"]
    assert "secret-of-s3" not in " ".join(command)


def test_a_replica_that_supervises_does_not_load_what_only_the_converter_needs():
    imports = "serving.experience.conversion.supervisor, serving.experience.conversion.backlog"
    script = f"import sys, {imports}; print({{'pyarrow', 'onnxruntime', 'psutil', 'mlflow'}} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], env=child_environment(), capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "set()", done.stderr
