"""HTTP clients of a policy server: `PolicyClient` needs only requests, `AsyncPolicyClient` only aiohttp."""

import importlib
from typing import TYPE_CHECKING, Any

from serving.client.errors import RequestRefused, ServerUnreachable, ServerUrlInvalid

if TYPE_CHECKING:
    from serving.client.async_client import AsyncPolicyClient
    from serving.client.client import PolicyClient

__all__ = ["AsyncPolicyClient", "PolicyClient", "RequestRefused", "ServerUnreachable", "ServerUrlInvalid"]

_MODULES = {"PolicyClient": "serving.client.client", "AsyncPolicyClient": "serving.client.async_client"}


def __getattr__(name: str) -> Any:
    """Import a client on first use, because each needs an HTTP library that the other does not."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
