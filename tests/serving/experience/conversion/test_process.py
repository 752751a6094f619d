import contextlib
import hashlib
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from serving.experience.conversion import process
from serving.experience.conversion.backlog import backlog, complete_segments
from serving.experience.conversion.process import ATTEMPTS_FILE, ConversionLoop
from serving.experience.journal.segment import SegmentWriter
from serving.experience.store import Store
from serving.processes import child_environment
from tests.faults.disk import mend, small_disk, spoil
from tests.serving.experience.conversion.journals import (
    Actor,
    episodes,
    identities,
    manifests,
    put_into_cache,
    rows,
    simple_segment,
    version_record,
    write_segment,
)
from tests.serving.policies import EXPLORING_BUNDLE
from tests.workshop import await_true


@pytest.fixture(scope="module")
def actor() -> Actor:
    return Actor(EXPLORING_BUNDLE)


@pytest.fixture(autouse=True)
def cache(tmp_path, actor) -> Path:
    put_into_cache(tmp_path / "cache", actor.name, actor.number, actor.bundle)
    return tmp_path / "cache"


@pytest.fixture
def journal(tmp_path, actor) -> Path:
    """A journal of three segments with ten decisions each."""
    for number in range(3):
        simple_segment(tmp_path / "journal", number, actor)
    return tmp_path / "journal"


@pytest.fixture
def loop(tmp_path, journal, cache) -> ConversionLoop:
    return ConversionLoop(journal, str(tmp_path / "store"), cache)


def command(tmp_path: Path, *options: str) -> list[str]:
    paths = {"--journal": tmp_path / "journal", "--uri": tmp_path / "store", "--cache": tmp_path / "cache"}
    named = [word for name, path in paths.items() for word in (name, str(path))]
    return [sys.executable, "-W", "ignore", "-m", "serving.experience.conversion", *named, *options]


def run(tmp_path: Path, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(tmp_path, *options), env=child_environment(), capture_output=True, text=True, check=False, timeout=240
    )


@contextlib.contextmanager
def running(tmp_path: Path, *options: str) -> Iterator[subprocess.Popen]:
    started = subprocess.Popen(command(tmp_path, *options), env=child_environment(), stderr=subprocess.PIPE, text=True)
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def test_all_complete_segments_are_converted(tmp_path, loop, journal):
    writer = SegmentWriter(journal / "r1-9.segment", 4096, {"format": 1})
    assert loop.convert_all()
    assert len(identities(tmp_path / "store")) == len(set(identities(tmp_path / "store"))) == 30
    assert [path.name for path in journal.iterdir()] == ["r1-9.segment"]
    writer.close()


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_store_that_is_full_or_read_only_keeps_the_segments_and_warns_once(tmp_path, journal, cache, caplog, fault):
    disk = tmp_path / "disk"
    caplog.set_level(logging.WARNING)
    with small_disk(disk, "1m"):
        loop = ConversionLoop(journal, str(disk / "store"), cache)
        spoil(disk, fault)
        assert not loop.convert_all()
        assert not loop.convert_all()
        assert backlog(journal).segments == 3
        (record,) = caplog.records
        assert "The journal keeps 3 segments" in record.getMessage()
        assert record.exc_info is None
        mend(disk, fault)
        assert loop.convert_all()
        assert len(identities(disk / "store")) == len(set(identities(disk / "store"))) == 30
        assert "can be used again" in caplog.records[-1].getMessage()
        assert not list(disk.rglob(".writing-*"))


class NoBucket(Store):
    """A store whose bucket does not exist."""

    def write(self, path: str, content: bytes) -> None:  # noqa: ARG002
        raise FileNotFoundError("no such bucket")


def test_a_bucket_that_does_not_exist_is_an_outage(journal, loop, caplog, monkeypatch):
    monkeypatch.setattr(process, "open_store", lambda uri: NoBucket(uri, None, None))
    assert not loop.convert_all()
    assert backlog(journal).segments == 3
    assert "no such bucket. The journal keeps 3 segments" in caplog.text


def test_a_segment_that_another_converter_has_deleted_is_none_of_ours(journal, loop, monkeypatch, caplog):
    gone = [*complete_segments(journal), journal / "r1-9.segment"]
    monkeypatch.setattr(process, "complete_segments", lambda _: gone)
    assert loop.convert_all()
    assert not caplog.records


def test_an_outage_that_begins_again_is_logged_again(tmp_path, loop, journal, actor, caplog):
    caplog.set_level(logging.WARNING)
    for number in (7, 8):
        (tmp_path / "store").mkdir(exist_ok=True)
        (tmp_path / "store" / "decisions").rename(tmp_path / "moved") if number == 8 else None
        (tmp_path / "store" / "decisions").write_text("a file in the way")
        simple_segment(journal, number, actor)
        assert not loop.convert_all()
        (tmp_path / "store" / "decisions").unlink()
        assert loop.convert_all()
    assert len(caplog.records) == 4


def test_a_segment_that_cannot_be_converted_does_not_keep_the_others(tmp_path, loop, journal, actor, caplog):
    os.utime(simple_segment(journal, 9, actor, created_ns="yesterday"), (1, 1))  # the first to be converted
    caplog.set_level(logging.WARNING)
    assert loop.convert_all()
    assert loop.convert_all()
    assert [path.name for path in complete_segments(journal)] == ["r1-9.segment"]
    assert len(identities(tmp_path / "store")) == 30
    assert [record.getMessage() for record in caplog.records] == [
        "segment r1-9.segment",  # with a traceback
        f"segment {journal}/r1-9.segment stays in the journal: the conversion failed",
    ]


def test_a_segment_of_a_later_release_is_left_with_one_warning(tmp_path, loop, journal, actor, caplog, monkeypatch):
    monkeypatch.setattr(process, "POSTPONED_S", 0)
    simple_segment(journal, 9, actor, format=2)
    caplog.set_level(logging.WARNING)
    assert loop.convert_all()
    assert loop.convert_all()
    (record,) = caplog.records
    assert record.getMessage().endswith("r1-9.segment stays in the journal: a later release has written it")
    assert len(identities(tmp_path / "store")) == 30


def test_segments_that_cannot_be_deleted_are_converted_once_they_can(tmp_path, actor, cache, caplog, monkeypatch):
    caplog.set_level(logging.WARNING)
    with small_disk(tmp_path / "disk", "1m"):
        path = simple_segment(tmp_path / "disk" / "journal", 1, actor)
        loop = ConversionLoop(path.parent, str(tmp_path / "store"), cache)
        spoil(tmp_path / "disk", "read-only")
        assert loop.convert_all()
        assert "it cannot be read or deleted" in caplog.text
        mend(tmp_path / "disk", "read-only")
        assert loop.convert_all()
        assert path.exists()  # it is tried again later
        monkeypatch.setattr(process.time, "monotonic", lambda: float("inf"))
        assert loop.convert_all()
        assert not path.exists()
    assert len(identities(tmp_path / "store")) == 10


def test_a_segment_during_whose_conversion_the_process_ended_thrice_is_not_audited(tmp_path, journal, cache, actor):
    ends = journal / ATTEMPTS_FILE
    for number, attempts, outcome in ((7, 2, "ok"), (8, 3, "unchecked")):
        path = simple_segment(journal, number, actor)
        ends.write_text(f'{{"segment": "{path.name}", "attempts": {attempts}}}')
        ConversionLoop(journal, str(tmp_path / "store"), cache).convert_all()
        assert {row["audit"] for row in rows(tmp_path / "store") if row["segment"] == number} == {outcome}
        assert not ends.exists()
    ends.write_text("what is this")
    assert ConversionLoop(journal, str(tmp_path / "store"), cache).convert_all()


def test_the_backlog_counts_complete_segments(tmp_path, journal):
    sizes = [path.stat().st_size for path in journal.iterdir()]
    writer = SegmentWriter(journal / "r1-9.segment", 4096, {"format": 1})
    assert backlog(journal) == (3, sum(sizes))
    writer.close()
    assert backlog(tmp_path / "none") == (0, 0)


@pytest.mark.e2e
def test_the_process_converts_what_comes_steps_back_and_ends_on_sigterm(tmp_path, journal, actor):
    with running(tmp_path) as started:
        await_true(lambda: not complete_segments(journal), "the segments are converted")
        shown = psutil.Process(started.pid)
        assert (shown.nice(), os.sched_getscheduler(started.pid)) == (19, os.SCHED_BATCH)
        assert shown.ionice().ioclass == psutil.IOPRIO_CLASS_IDLE
        started.send_signal(signal.SIGSTOP)
        simple_segment(journal, 4, actor)
        started.send_signal(signal.SIGTERM)
        started.send_signal(signal.SIGCONT)
        assert started.wait(60) == 0
    assert not complete_segments(journal)
    assert len(identities(tmp_path / "store")) == 40


@pytest.mark.e2e
@pytest.mark.usefixtures("journal")
def test_once_converts_and_ends_with_a_status_that_says_whether_segments_are_left(tmp_path):
    (tmp_path / "store").write_text("a file where the store should be")
    failed = run(tmp_path, "--once")
    assert failed.returncode == 1
    assert "cannot be used" in failed.stderr
    assert "Traceback" not in failed.stderr
    (tmp_path / "store").unlink()
    done = run(tmp_path, "--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(identities(tmp_path / "store")) == 30


def test_a_uri_of_another_kind_is_an_error_of_one_line(tmp_path):
    options = ("--uri", "ftp://host/path", "--log-format", "json")
    done = run(tmp_path, *options)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "neither a local path" in done.stderr


def assert_each_once(store: Path, segments: int, decisions: int) -> None:
    """Each decision is there once, and each file is the one that its manifest names."""
    found = identities(store)
    assert len(found) == len(set(found)) == segments * decisions
    named = {name: file for manifest in manifests(store).values() for name, file in manifest["files"].items()}
    assert len(manifests(store)) == segments
    for name, file in named.items():
        assert hashlib.sha256((store / name).read_bytes()).hexdigest() == file["sha256"]


@pytest.mark.long
def test_each_decision_is_there_once_after_kills_at_random_moments(tmp_path, actor):
    moments, segments = random.Random(0), 250
    for number in range(segments):
        simple_segment(tmp_path / "journal", number, actor, 5)
    for _ in range(8):
        left = len(complete_segments(tmp_path / "journal"))
        with running(tmp_path) as started:
            await_true(lambda: len(complete_segments(tmp_path / "journal")) < left, "it converts")  # noqa: B023
            time.sleep(moments.uniform(0, 0.1))
            started.kill()
    assert complete_segments(tmp_path / "journal")  # or the last kills came too late
    assert run(tmp_path, "--once").returncode == 0
    assert_each_once(tmp_path / "store", segments, 5)


@pytest.mark.long
def test_the_memory_for_a_million_decisions_is_that_for_the_first(tmp_path, actor):
    count, segments = 20_000, 50
    inputs = actor.inputs(count, np.random.default_rng(1))
    outputs = actor.act(inputs, row_seeds=range(count))
    payloads = [version_record(actor.spec)]
    for row in range(count):
        one = [{name: values[row : row + 1] for name, values in each.items()} for each in (inputs, outputs)]
        payloads.append(actor.record(*one, episodes(1, first=row), row_seeds=(row,)))
    for number in range(segments):
        write_segment(tmp_path / "journal", number, payloads, size=4 << 20)
    used = []
    with running(tmp_path) as started:

        def is_done() -> bool:
            left = len(complete_segments(tmp_path / "journal"))
            used.append((segments - left, psutil.Process(started.pid).memory_info().rss))
            return not left

        await_true(is_done, "all are converted", 240)
    first = max(size for converted, size in used if 5 <= converted <= 15)
    most = max(size for _, size in used)
    logging.getLogger(__name__).info("%d MiB after ten segments, at most %d MiB", first >> 20, most >> 20)
    assert most < 1.15 * first
    assert sum(manifest["audit"]["ok"] for manifest in manifests(tmp_path / "store").values()) == count * segments
