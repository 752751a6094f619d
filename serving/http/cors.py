"""Cross-origin resource sharing (fetch.spec.whatwg.org): lets web pages of other origins call the server."""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

METHODS = ("GET", "HEAD", "POST")
"""The methods of all routes."""

EXPOSED_HEADERS = (
    *("X-Model-Name", "X-Model-Version", "X-Repinned", "X-Request-ID", "Inference-Header-Content-Length"),
    *("Allow", "Accept-Encoding", "Retry-After", "WWW-Authenticate"),
)
"""The response headers that scripts can read, in addition to those that they always can."""


def with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Return the application with CORS headers on every response, errors included, for pages of these origins.

    A preflight request is answered without a token, because browsers send none with it. Without origins, the
    application itself is returned, so that its requests cost nothing.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=METHODS,
        allow_headers=["*"],
        # Pages of public sites may call a server on the local network only if it agrees.
        allow_private_network=True,
        expose_headers=EXPOSED_HEADERS,
    )
