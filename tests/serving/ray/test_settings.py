import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.ray import settings as engine


def test_settings_are_put_where_ray_reads_them_and_leave_nothing_behind() -> None:
    code = """if True:
        import os
        from pathlib import Path
        os.environ["RAY_SERVE_HAPROXY_NBTHREAD"] = "7"
        from serving import engine
        engine.configure()
        from ray.serve._private import constants, haproxy
        assert constants.RAY_SERVE_ENABLE_HA_PROXY and constants.RAY_SERVE_THROUGHPUT_OPTIMIZED
        assert constants.RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S == 0
        assert constants.RAY_SERVE_HAPROXY_NBTHREAD == 7, "what is set already stays"
        wrapper = Path(haproxy.get_haproxy_binary())
        assert wrapper.parent.stat().st_mode & 0o077 == 0
        print(wrapper.parent)
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not Path(done.stdout.strip()).exists()


def test_the_longest_socket_path_fits() -> None:
    node, process = "f" * 56, "4194304"
    assert len(f"/tmp/serving-12345678/{node}/admin.sock.{process}.tmp") <= 107
    assert len(f"/tmp/serving-12345678/{node}/stats.sock.{process}.tmp") <= 107


def test_missing_settings_are_named(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.getswitchinterval()
    monkeypatch.delenv("RAY_SERVE_ENABLE_HA_PROXY", raising=False)
    monkeypatch.setenv("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1")
    try:
        with caplog.at_level(logging.WARNING):
            engine.tune_replica()
        assert sys.getswitchinterval() == pytest.approx(engine.SWITCH_INTERVAL_S)
    finally:
        sys.setswitchinterval(before)
    assert "RAY_SERVE_ENABLE_HA_PROXY=1 ray start" in caplog.text


def test_without_haproxy_serves_own_proxy_is_used(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "haproxy_binary", lambda: None)
    monkeypatch.setattr(os, "environ", environment := {})
    engine.configure()
    assert environment["RAY_SERVE_ENABLE_HA_PROXY"] == "0"
    assert "HAProxy is not available here" in caplog.text
