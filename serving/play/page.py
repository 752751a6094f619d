"""The web page, assembled from the files in `web/`, and the headers that keep it from loading anything else."""

import base64
import functools
import hashlib
from pathlib import Path

DIRECTORY = Path(__file__).parent / "web"

SCRIPTS = ("stream.js", "panels.js", "drawing.js", "viewer.js")
"""The parts of the script, in their order."""


def _files(*names: str) -> str:
    return "\n".join((DIRECTORY / name).read_text(encoding="utf-8") for name in names)


@functools.cache
def page() -> bytes:
    """Return the page: HTML with its style and script inline."""
    html = _files("page.html").replace("/* style */", _files("page.css"))
    return html.replace("/* script */", _files(*SCRIPTS)).encode()


def _digest(*names: str) -> str:
    return base64.b64encode(hashlib.sha256(_files(*names).encode()).digest()).decode()


@functools.cache
def headers() -> tuple[tuple[bytes, bytes], ...]:
    """Return headers that allow the page only its own style and script, and requests to its own server.

    The digests identify the style and the script (w3.org/TR/CSP3).
    """
    policy = (
        "default-src 'none'",
        f"style-src 'sha256-{_digest('page.css')}'",
        f"script-src 'sha256-{_digest(*SCRIPTS)}'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return (
        (b"content-security-policy", "; ".join(policy).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cache-control", b"no-cache"),
    )
