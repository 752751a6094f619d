import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
import requests
import uvicorn

from serving.http.direct_port import DirectPort
from serving.http.policy_app import PolicyApp
from tests.workshop import free_port

QUESTION = {"observation": [0, 0, 1, 0]}


@pytest.fixture(autouse=True)
def _replica_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process may end before the server notices that it should stop, which it does not here."""

    async def notice_nothing(_server: uvicorn.Server) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(uvicorn.Server, "main_loop", notice_nothing)


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 20))


async def ask(port: int) -> requests.Response:
    """Ask in a thread, for the application shares this event loop; wait until somebody listens."""
    while True:
        try:
            return await asyncio.to_thread(requests.post, f"http://127.0.0.1:{port}", json=QUESTION)
        except requests.ConnectionError:
            await asyncio.sleep(0.01)


def test_a_direct_port_answers_as_the_application_does(app: PolicyApp) -> None:
    async def work() -> None:
        direct = DirectPort(app, port := free_port())
        direct.start()
        answer = await ask(port)
        assert (answer.json(), answer.headers["X-Model-Version"]) == ({"action": 1}, "3")
        direct.stop()

    run(work)


def test_replicas_share_a_port_and_one_that_stops_leaves_it_to_the_others(app: PolicyApp) -> None:
    async def work() -> None:
        first, second = DirectPort(app, port := free_port()), DirectPort(app, port)
        first.start()
        await ask(port)
        second.start()
        await ask(port)
        first.stop()
        for _ in range(10):  # new connections, any of which the first would have taken with one chance in two
            assert (await ask(port)).ok
        second.stop()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

    run(work)


def test_a_request_in_progress_is_answered_and_an_idle_connection_closed_when_it_stops() -> None:
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def slow(_scope: object, _receive: object, send: Callable[[dict[str, object]], Awaitable[None]]) -> None:
        begun.set()
        await goes_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def work() -> None:
        direct = DirectPort(slow, port := free_port())
        direct.start()
        asking = asyncio.create_task(ask(port))
        await begun.wait()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0)
        direct.stop()
        goes_on.set()
        assert (await asking).text == "ok"
        assert await reader.read() == b""
        writer.close()

    run(work)


def test_a_port_of_another_program_is_not_shared(app: PolicyApp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use"):
        DirectPort(app, other.getsockname()[1]).start()
