"""`/openapi.json`, the description of the API for the served policy, and `/docs`, a page that shows it.

OpenAPI 3.1 (spec.openapis.org/oas/v3.1.1).
"""

from collections.abc import Sequence
from pathlib import Path

import orjson

from serving.errors import HttpError, http_errors
from serving.policy.spaces import Json
from serving.protocols.openapi.parts import Paths, error_components, error_references, get_operation, html
from serving.protocols.protocol import Protocol, Request, Response
from serving.replica.auth import OPEN_PATHS
from serving.replica.served_policy import ServedPolicy

PAGE = Path(__file__).with_name("docs.html")

CONTENT_SECURITY_POLICY = (
    b"content-security-policy",
    b"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:",
)
"""Restricts the page to requests to its own server."""


class Documentation(Protocol):
    """Describes the given protocols and itself.

    Args:
        protocols: Each contributes its own paths.
        closed: Whether requests need a token.
    """

    def __init__(self, protocols: Sequence[Protocol], *, closed: bool) -> None:
        self._protocols = (*protocols, self)
        self._closed = closed

    def methods(self, path: str) -> tuple[str, ...]:
        """Return the HTTP methods that a path accepts."""
        return ("GET", "HEAD") if path in {"/openapi.json", "/docs"} else ()

    async def answer(self, request: Request, served: ServedPolicy) -> Response:
        """Return the description, or the page that shows it."""
        if request.path == "/docs":
            return Response(PAGE.read_bytes(), b"text/html; charset=utf-8", (CONTENT_SECURITY_POLICY,))
        return Response(orjson.dumps(self.document(served, request.prefix)))

    def paths(self, served: ServedPolicy) -> Paths:  # noqa: ARG002
        """Return OpenAPI's path items."""
        docs = {"200": html("A page that shows this description"), **error_references()}
        return {
            "/openapi.json": {"get": get_operation("openapi", "This description", {"type": "object"})},
            "/docs": {"get": {"operationId": "docs", "summary": "This description as a page", "responses": docs}},
        }

    def document(self, served: ServedPolicy, prefix: str) -> dict[str, Json]:
        """Return the description of the API under a route prefix."""
        version = served.version
        description = f"Actions of {version.uri} for {served.policy.environment.id}, version {version.version}."
        components: dict[str, Json] = {"responses": error_components(self._native_errors())}
        document = {
            "openapi": "3.1.0",
            "info": {"title": version.name, "version": str(version.version), "description": description},
            "servers": [{"url": prefix or "/"}],
            "paths": self._all_paths(served),
            "components": components,
        }
        if self._closed:
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"token": []}]
        return document

    def _all_paths(self, served: ServedPolicy) -> Paths:
        """Return the path items of all protocols, with responses 401 only where a path needs a token."""
        paths = {path: item for protocol in self._protocols for path, item in protocol.paths(served).items()}
        for path, item in paths.items():
            for operation in item.values():
                if not self._closed or path in OPEN_PATHS:
                    responses = operation["responses"]
                    operation["responses"] = {status: responses[status] for status in responses if status != "401"}
                if self._closed and path in OPEN_PATHS:
                    operation["security"] = []
        return paths

    def _native_errors(self) -> list[type[HttpError]]:
        """Return the errors that are answered in the native form: those that no protocol's own package defines."""
        packages = {_package(type(protocol)) for protocol in self._protocols}
        return [error for error in http_errors() if _package(error) not in packages]


def _package(cls: type) -> str:
    return cls.__module__.rpartition(".")[0]
