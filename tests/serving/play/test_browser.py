"""The page in a real Chromium, in front of a real HTTP server."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from serving.arguments import Arguments
from serving.http.policy_app import PolicyApp
from tests.browser import chromium
from tests.serving.asking import served
from tests.serving.play.viewer import environments
from tests.serving.policies import CONTRARY_BUNDLE, COUNTING_BUNDLE, EXPLORING_BUNDLE
from tests.workshop import await_true

pytestmark = pytest.mark.e2e

DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def open_page(browser: Any, serve_http: Callable[[Any], str]) -> Iterator[Callable[..., Any]]:
    """Open /play of an application. Pages are closed before their server, which waits for their requests."""
    pages = []

    def open_page(app: Any, **options: Any) -> tuple[Any, "PageLog"]:
        page = browser.new_page(**options)
        pages.append(page)
        page.set_default_timeout(15_000)
        log = PageLog(page)
        page.goto(f"{serve_http(app)}/play")
        return page, log

    yield open_page
    for page in pages:
        page.close()


class PageLog:
    """The console messages, errors and requests of a page."""

    def __init__(self, page: Any) -> None:
        self.faults: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.faults.append(message.text))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))


def step(page: Any) -> int:
    shown = page.locator("#step").text_content()
    return int(shown) if shown.isdecimal() else -1


def drawing(page: Any) -> str:
    return str(page.evaluate("document.getElementById('canvas').toDataURL()"))


@pytest.mark.parametrize(("viewport", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_the_page_shows_each_step_and_a_promotion(
    open_page: Callable[..., Any], viewport: dict[str, int], scheme: str
) -> None:
    app = PolicyApp(served(EXPLORING_BUNDLE))
    page, log = open_page(app, viewport=viewport, color_scheme=scheme)
    page.get_by_text("Live", exact=True).wait_for()
    await_true(lambda: step(page) >= 3, "steps are taken", 10)
    first = drawing(page)
    await_true(lambda: drawing(page) != first, "the drawing moves", 5)
    assert page.locator("#version-number").text_content() == "3"
    assert page.locator("#value").text_content() != "not in the graph"
    assert page.locator("#distribution .chosen").count() == 1
    assert "ms" in page.locator("#latency").text_content()
    top = page.locator(".scene").bounding_box()["y"]
    app.served = served(CONTRARY_BUNDLE, version=4)
    page.get_by_text("Version 4 took over from version 3").wait_for()
    assert page.locator("#version-number").text_content() == "4"
    assert page.locator(".scene").bounding_box()["y"] == top, "the layout does not move"
    page.locator("circle.ended").first.wait_for()  # the contrary policy soon fails
    assert page.locator(".promotion").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "no horizontal scrolling"
    page.keyboard.press("Space")
    page.get_by_role("button", name="Play").wait_for()
    await_true(lambda: not environments(), "a paused page frees its session")
    assert log.faults == []
    assert log.requests == [page.url, f"{page.url}/events"], "the page requests nothing else"


def rows(page: Any) -> list[list[str]]:
    """The table of the versions: number, episodes and mean return."""
    return [row.locator("td").all_text_contents() for row in page.locator("#versions tbody tr").all()]


def test_the_page_shows_the_mean_return_of_each_version_and_counts_mixed_episodes_for_none(
    open_page: Callable[..., Any],
) -> None:
    app = PolicyApp(served(CONTRARY_BUNDLE))
    page, log = open_page(app)
    await_true(lambda: rows(page) and int(rows(page)[0][1]) >= 2, "the contrary policy soon fails", 20)
    assert [row[0] for row in rows(page)] == ["3"]
    assert 5 < float(rows(page)[0][2]) < 20
    app.served = served(EXPLORING_BUNDLE, version=4)
    page.get_by_text("Version 4 took over").wait_for()
    app.served = served(CONTRARY_BUNDLE, version=5)
    await_true(lambda: len(rows(page)) == 2, "version 5 has played an episode of its own", 30)
    assert [row[0] for row in rows(page)] == ["5", "3"]
    assert "by several versions" in page.locator("#mixed").text_content()
    assert log.faults == []


def test_an_environment_that_may_not_be_imported_shows_numbers_and_the_option(open_page: Callable[..., Any]) -> None:
    page, log = open_page(PolicyApp(served(COUNTING_BUNDLE)))
    page.get_by_text("To allow it: --environment-modules tests.serving.counting").wait_for()
    await_true(lambda: step(page) >= 1, "the policy answers", 10)
    assert page.locator("#observation .row").count() == 1
    assert log.faults == []
    assert not environments()


def test_an_environment_that_is_allowed_is_played(open_page: Callable[..., Any]) -> None:
    page, _ = open_page(PolicyApp(served(COUNTING_BUNDLE), Arguments(environment_modules=("tests.serving",))))
    page.get_by_text("This environment renders no images.").wait_for()
    assert environments()


def test_reduced_motion_starts_paused_and_a_full_server_is_reported(open_page: Callable[..., Any]) -> None:
    app = PolicyApp(served(EXPLORING_BUNDLE), Arguments(play_sessions=1))
    calm, _ = open_page(app, reduced_motion="reduce")
    calm.get_by_role("button", name="Play").click()
    calm.get_by_text("Live", exact=True).wait_for()
    other, _ = open_page(app)
    other.get_by_text("All sessions are in use.").wait_for()
    calm.get_by_role("button", name="Pause").click()
    other.get_by_text("Live", exact=True).wait_for()


def test_the_page_asks_for_a_token_if_the_server_requires_one(open_page: Callable[..., Any]) -> None:
    app = PolicyApp(served(EXPLORING_BUNDLE))

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/play/events" and (b"authorization", b"Bearer sesame") not in scope["headers"]:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})
        else:
            await app(scope, receive, send)

    page, _ = open_page(guarded)
    page.get_by_label("This server requires a token").fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_label("The server rejected this token").fill("sesame")
    page.keyboard.press("Enter")
    page.get_by_text("Live", exact=True).wait_for()


def test_the_page_reconnects_to_a_restarted_server(open_page: Callable[..., Any]) -> None:
    app, away = PolicyApp(served(EXPLORING_BUNDLE)), [False]

    async def flickering(scope: Any, receive: Any, send: Any) -> None:
        if away[0]:
            raise ConnectionError
        await app(scope, receive, send)

    page, _ = open_page(flickering)
    page.get_by_text("Live", exact=True).wait_for()
    away[0] = True
    for child in environments():
        child.kill()
    page.get_by_text("Reconnecting").wait_for()
    away[0] = False
    page.get_by_text("Live", exact=True).wait_for()
