import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from serving.rollout.crashes import Crashes, computed, label_of
from serving.rollout.refusals import LIFTED, Refusals
from tests.serving.rollout.test_refusals import VERSION

SCOPE = "an-app"
REPLICA = """
import os, sys, threading
from pathlib import Path
import numpy as np
from serving.policy.guards.watchdog import Guard
from serving.policy.policy import Policy
from serving.rollout.crashes import Crashes, label_of
from serving.rollout.refusals import Refusals
from tests.serving.failing import FAILING, FATAL_OBSERVATION
from tests.serving.rollout.test_refusals import VERSION

directory, code, end = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
crashes = Crashes(directory, "an-app", Refusals(directory, "an-app"))
crashes.note(label_of(VERSION), VERSION)
crashes.enable()
policy = Policy.load(FAILING[code], guard=Guard(60, label_of(VERSION)))
print("ready", flush=True)
if end == "compute":
    policy.act(np.array([FATAL_OBSERVATION], np.float32))
threading.Event().wait()
"""


def replica(directory: Path, code: str, end: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", REPLICA, str(directory), code, end]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def look(directory: Path) -> Refusals:
    refusals = Refusals(directory, SCOPE)
    Crashes(directory, SCOPE, refusals).collect()
    return refusals


def files(directory: Path) -> list[Path]:
    return list((directory / "crashes" / SCOPE).iterdir())


def test_a_version_that_crashes_its_process_is_refused_and_the_log_shows_where(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process = replica(tmp_path, "crashed", "compute")
    assert process.wait(30) == -signal.SIGFPE
    refusal = look(tmp_path).of(VERSION)
    assert refusal is not None
    assert (refusal.code, refusal.reason) == ("crashed", "it ended the process of a replica: Floating point exception")
    assert f"in {label_of(VERSION)}" in caplog.text
    assert files(tmp_path) == [], "it is read once"


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV])
def test_a_replica_that_is_killed_while_it_waits_is_no_fault_of_the_version(tmp_path: Path, signum: int) -> None:
    process = replica(tmp_path, "crashed", "wait")
    process.send_signal(signum)
    process.wait(30)
    assert look(tmp_path).of(VERSION) is None
    assert files(tmp_path) == []


def test_a_replica_that_is_killed_while_its_policy_computes_is_no_fault_of_the_version(tmp_path: Path) -> None:
    process = replica(tmp_path, "inference_timeout", "compute")
    process.kill()
    process.wait(30)
    assert look(tmp_path).of(VERSION) is None


def test_the_file_of_a_living_replica_stays(tmp_path: Path) -> None:
    process = replica(tmp_path, "crashed", "wait")
    try:
        look(tmp_path)
        assert len(files(tmp_path)) == 1
    finally:
        process.kill()
        process.wait(30)


DUMP = """Segmentation fault

Thread 0x01 (most recent call first):
  File "/x/onnxruntime_inference_collection.py", line 406 in run
  File "/x/watchdog.py", line 66 in {computing}

Current thread 0x02 (most recent call first):
{frames}
Extension modules: numpy (total: 1)
"""


@pytest.mark.parametrize(
    ("computing", "frames", "is_guilty"),
    [
        ("version_5_ab", '  File "/x/asyncio/events.py", line 80 in _run\n', False),
        ("version_5_ab", "", True),
        ("version_4_cd", "", False),
        ("version_4_cd", '  File "/x/watchdog.py", line 66 in version_5_ab\n', True),
    ],
    ids=["another thread of Python crashed", "a thread of ONNX Runtime", "of another version", "its own thread"],
)
def test_a_version_is_guilty_if_it_computed_in_the_thread_that_crashed(
    computing: str, frames: str, *, is_guilty: bool
) -> None:
    assert computed("version_5_ab", DUMP.format(computing=computing, frames=frames)) is is_guilty


@pytest.fixture
def dumping(tmp_path: Path) -> BinaryIO:
    """The file of another replica in this process, whose version was loaded and then got a tag."""
    crashes = Crashes(tmp_path, SCOPE, Refusals(tmp_path, SCOPE))
    (tmp_path / "crashes" / SCOPE).mkdir(parents=True)
    file = crashes._locked_file()
    for version in (VERSION, TAGGED):
        crashes._write(file, "version_5_ab", version)
    os.pwrite(file.fileno(), b"half a line, as of a full disk", os.fstat(file.fileno()).st_size)
    return file


TAGGED = replace(VERSION, tags={**VERSION.tags, LIFTED: "checked"})
CRASH = b"""Fatal Python error: Aborted

Current thread 0x1 (most recent call first):
  File "/x/watchdog.py", line 66 in version_5_ab
"""


def test_the_version_is_the_one_with_the_last_noted_tags(tmp_path: Path, dumping: BinaryIO) -> None:
    dumping.write(CRASH)
    refusals = look(tmp_path)
    assert refusals.of(VERSION) is None
    assert refusals.of(TAGGED) is not None


def test_tags_that_no_refusal_depends_on_take_no_place_in_the_file(tmp_path: Path) -> None:
    """The online return of a version changes for as long as it is served, and only a part of the file is read."""
    crashes = Crashes(tmp_path, SCOPE, Refusals(tmp_path, SCOPE))
    (tmp_path / "crashes" / SCOPE).mkdir(parents=True)
    crashes._file = crashes._locked_file()
    sizes = []
    for count, lifted in ((1, {}), (2, {}), (2, {LIFTED: "1"})):
        crashes.note("version_5_ab", replace(VERSION, tags={**VERSION.tags, "online.episodes": f"{count}", **lifted}))
        sizes.append(os.fstat(crashes._file.fileno()).st_size)
    assert sizes[0] == sizes[1] < sizes[2]


def test_a_crash_is_an_alarm_before_the_process_has_ended(tmp_path: Path, dumping: BinaryIO) -> None:
    refusals = Refusals(tmp_path, SCOPE)
    crashes = Crashes(tmp_path, SCOPE, refusals)
    crashes.collect()
    assert not crashes.has_alarm()
    dumping.write(CRASH[:30])
    for _ in range(2):
        assert crashes.has_alarm()
        crashes.collect()
        assert refusals.of(TAGGED) is None
    dumping.write(CRASH[30:])
    crashes.collect()
    assert refusals.of(TAGGED) is not None
    assert not crashes.has_alarm()
    assert len(files(tmp_path)) == 1, "the process may still write"
    dumping.close()
    crashes.collect()
    assert files(tmp_path) == []


def test_a_directory_that_cannot_be_written_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "crashes").write_text("a file")
    Crashes(tmp_path, SCOPE, Refusals(tmp_path, SCOPE)).enable()
    assert f"crashes of this replica are not recorded below {tmp_path}" in caplog.text
