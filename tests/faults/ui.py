"""A promotion as a person makes it: clicks in MLflow's user interface, in a headless Chromium."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.browser import chromium


@contextlib.contextmanager
def promote_by_hand(url: str, name: str, version: int, screenshots: Path) -> Iterator[Callable[[], None]]:
    """Open a version's page, all set but for the last click; what is yielded makes that click."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        try:
            _prepare(page, f"{url}/#/models/{name}/versions/{version}", screenshots)
            yield lambda: _confirm(page, screenshots)
        except Exception:
            page.screenshot(path=str(screenshots / "failed.png"))
            raise


def _prepare(page: Any, address: str, screenshots: Path) -> None:
    page.goto(address)
    page.get_by_role("switch").click(timeout=60_000)
    page.get_by_role("button", name="Disable").click()
    stage = page.get_by_text("Stage:", exact=False).first
    stage.wait_for()
    page.screenshot(path=str(screenshots / "1-before.png"))
    page.locator(".ant-dropdown-trigger, [aria-haspopup]").filter(has_text="None").or_(
        page.get_by_text("Archived", exact=True)
    ).or_(page.get_by_text("None", exact=True)).first.click()
    page.get_by_text("Production").last.click()
    page.get_by_text("Transition existing Production model version").wait_for()
    box = page.get_by_role("checkbox").last
    if not box.is_checked():
        box.check()
    page.screenshot(path=str(screenshots / "2-dialog.png"))


def _confirm(page: Any, screenshots: Path) -> None:
    page.get_by_role("button", name="OK").click()
    page.get_by_text("Transition existing Production model version").wait_for(state="hidden")
    page.screenshot(path=str(screenshots / "3-promoted.png"))
