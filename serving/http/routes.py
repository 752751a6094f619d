"""Finds the protocol that answers a path."""

import functools
from collections.abc import Callable

from serving.errors import RequestError
from serving.experience.journal.journal import Journal
from serving.experience.online import OnlineReturns
from serving.protocols.errors import MethodNotAllowed, PathUnknown
from serving.protocols.feedback.events import Event
from serving.protocols.native.protocol import METHODS, NativeProtocol
from serving.protocols.openapi.openapi import Documentation
from serving.protocols.protocol import Protocol


class Routes:
    """The protocols of an application, and its documentation.

    Args:
        native: answers unknown paths, too.
        others: the other protocols.
        closed: whether requests need a token.
    """

    def __init__(self, native: NativeProtocol, *others: Protocol, closed: bool) -> None:
        self._native = native
        self.protocols: tuple[Protocol, ...] = (native, *others, Documentation((native, *others), closed=closed))
        self.find = functools.lru_cache(maxsize=64)(self._find)

    def _find(self, path: str) -> tuple[Protocol, tuple[str, ...]]:
        """Return the protocol of a path and the methods that it accepts; the native one and none for unknown paths."""
        for protocol in self.protocols:
            if methods := protocol.methods(path):
                return protocol, methods
        return self._native, ()


def not_found(method: str, path: str, allowed: tuple[str, ...]) -> RequestError:
    """Return the error for a path that does not exist, or does not accept the method."""
    return MethodNotAllowed(method, path, allowed) if allowed else PathUnknown(path, tuple(METHODS))


def reports_to(journal: Journal, online: OnlineReturns) -> Callable[[Event], None]:
    """Return what records a client's report in a journal and counts it in the online return."""

    def report(event: Event) -> None:
        content = event.content()
        journal.report(content)
        online.add(content)

    return report
