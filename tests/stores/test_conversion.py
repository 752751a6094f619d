"""Experience in S3: a server of its own that is away for a while."""

import os
import signal
import subprocess
import sys

import pytest

from serving.experience.conversion.backlog import complete_segments
from serving.experience.store import open_store
from serving.processes import child_environment
from tests.serving.experience.conversion.journals import Actor, put_into_cache, simple_segment
from tests.serving.policies import EXPLORING_BUNDLE
from tests.stores.servers import BUCKET, MARKER, S3
from tests.workshop import await_true

pytestmark = pytest.mark.stores


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hanging"])
def test_segments_wait_while_s3_is_away_and_are_converted_when_it_is_back(s3: S3, tmp_path, monkeypatch, signum):
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    actor, journal, log = Actor(EXPLORING_BUNDLE), tmp_path / "journal", tmp_path / "log"
    put_into_cache(tmp_path / "cache", actor.name, actor.number, actor.bundle)
    prefix = f"experience-{signum.name}"
    uri = f"s3://{BUCKET}/{prefix}"
    options = ("--journal", str(journal), "--uri", uri, "--cache", str(tmp_path / "cache"))
    command = [sys.executable, "-W", "ignore", "-m", "serving.experience.conversion", *options]
    with log.open("w") as output:
        converter = subprocess.Popen(command, env=child_environment(), stderr=output)
    try:
        simple_segment(journal, 1, actor)
        await_true(lambda: not complete_segments(journal), "the first is converted")
        away(s3, signum)
        for number in (2, 3):
            simple_segment(journal, number, actor)
        await_true(lambda: "cannot be used" in log.read_text(), "the outage is logged", 120)
        assert len(complete_segments(journal)) == 2
        back(s3, signum)
        await_true(lambda: not complete_segments(journal), "the others are converted", 120)
    finally:
        back(s3, signum)
        converter.terminate()
        converter.wait(30)
    assert sorted(key for key in s3.all_keys() if key.startswith(f"{prefix}/decisions")) == [
        f"{prefix}/decisions/cartpole-ppo/2026-12-01/r1-{number}-v3.parquet" for number in (1, 2, 3)
    ]
    assert len(list(open_store(uri).files("manifests", ".json"))) == 3
    lines = log.read_text().splitlines()
    assert [line.partition(": ")[0].partition(" s3:")[0] for line in lines] == ["the store of experience"] * 2
    assert MARKER not in log.read_text()


def away(s3: S3, signum: signal.Signals) -> None:
    if signum == signal.SIGSTOP:
        os.killpg(s3.process.pid, signum)
    else:
        s3.stop()


def back(s3: S3, signum: signal.Signals) -> None:
    if signum == signal.SIGSTOP:
        os.killpg(s3.process.pid, signal.SIGCONT)
    elif s3.process.poll() is not None:
        s3.start()
