import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from serving.ray import drain, settings
from tests.workshop import answers, await_true, free_port

CONFIGURATION = """
defaults
    mode http
    timeout connect 1s
    timeout client 10s
    timeout server 10s
    option idle-close-on-response
frontend f
    bind 127.0.0.1:{port}
    http-request return status 200
"""


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """A running HAProxy that is a child of this process, and its URL."""
    binary, port = settings.haproxy_binary(), free_port()
    if binary is None:
        pytest.skip("no HAProxy for this system")
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(CONFIGURATION.format(port=port))
    process = subprocess.Popen([binary, "-db", "-f", str(configuration)])
    try:
        await_true(lambda: answers(f"http://127.0.0.1:{port}"), "HAProxy answers")
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def test_a_drained_proxy_ends(haproxy: tuple["subprocess.Popen[bytes]", str]) -> None:
    process, _ = haproxy
    drain.drain_proxies()
    assert process.wait(1) == 0


def test_an_open_connection_gets_its_next_answer_and_a_new_one_is_refused(
    haproxy: tuple["subprocess.Popen[bytes]", str], monkeypatch: pytest.MonkeyPatch
) -> None:
    process, url = haproxy
    monkeypatch.setattr(drain, "CLOSE_WITHIN_S", 0.2)
    with requests.Session() as session:
        session.get(url)
        drain.drain_proxies()
        with pytest.raises(requests.ConnectionError, match="refused"):
            requests.get(url, timeout=2)
        answer = session.get(url)
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    assert process.wait(2) == 0


def test_a_process_that_has_just_ended_is_passed_over(
    haproxy: tuple["subprocess.Popen[bytes]", str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.Popen(["sleep", "60"])
    found = [psutil.Process(ended.pid), psutil.Process(haproxy[0].pid)]
    ended.kill()
    ended.wait()
    monkeypatch.setattr(psutil.Process, "children", lambda *_, **__: found)
    drain.drain_proxies()
    assert haproxy[0].wait(5) == 0, "the proxy was drained"
