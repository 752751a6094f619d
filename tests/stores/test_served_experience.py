"""A server records to S3, which is away for a minute; what it recorded is then used from there."""

import json
import time
from pathlib import Path

import pytest

from tests.faults.arena import Registry
from tests.faults.players import Players
from tests.faults.recorder import NAME, Recorder, assert_recorded_once, tell_decisions
from tests.serving.policies import EXPLORING_BUNDLE
from tests.stores.servers import BUCKET, S3

pytestmark = [pytest.mark.e2e, pytest.mark.stores, pytest.mark.timeout(600)]

AWAY_S = 60


def test_no_request_fails_and_no_decision_is_lost_while_s3_is_away(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "registry").mkdir()
    registry = Registry(tmp_path / "registry")
    registry.promote(registry.register(EXPLORING_BUNDLE, name=NAME), NAME)
    recorder = Recorder(registry, tmp_path, f"s3://{BUCKET}/served")
    try:
        recorder.server.wait_up()
        with Players(recorder.server.url, number=4) as players:
            time.sleep(5)
            s3.stop()
            time.sleep(AWAY_S)
            s3.start()
            time.sleep(5)
        assert not players.failed
        assert_recorded_once(recorder, players.answered)
        assert recorder.dropped() == 0
        tell_decisions(f"S3 away for {AWAY_S} s", players.answered, "0 lost, none dropped")
        registry.shop.environment["MLFLOW_TRACKING_URI"] = registry.url
        for command in (
            ("compact", "--reward-wait-s", "0"),
            ("stats",),
            ("export", str(tmp_path / "exported"), "--to", "rllib", "--unreported", "keep"),
            ("report",),
        ):
            name, *options = command
            done = registry.shop.python("pipeline", "experience", name, recorder.uri, *options)
            assert done.returncode == 0, done.stdout + done.stderr
        about = json.loads((tmp_path / "exported" / "export.json").read_text())
        assert (about["source"], about["episodes"] > 0) == (recorder.uri, True)
    finally:
        recorder.server.end()
        registry.shop.end()
