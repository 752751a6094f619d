"""HTTP clients of a policy server: `PolicyClient` needs only requests, `AsyncPolicyClient` only aiohttp."""

import importlib
from typing import TYPE_CHECKING, Any

from serving.client.errors import EpisodeEnded, EpisodeInvalid, RequestRefused, ServerUnreachable, ServerUrlInvalid

if TYPE_CHECKING:
    from serving.client.async_client import AsyncPolicyClient
    from serving.client.client import PolicyClient
    from serving.client.episodes.environment import RecordedEpisodes

__all__ = [
    "AsyncPolicyClient",
    "EpisodeEnded",
    "EpisodeInvalid",
    "PolicyClient",
    "RecordedEpisodes",
    "RequestRefused",
    "ServerUnreachable",
    "ServerUrlInvalid",
]

_MODULES = {
    "AsyncPolicyClient": "serving.client.async_client",
    "PolicyClient": "serving.client.client",
    "RecordedEpisodes": "serving.client.episodes.environment",
}


def __getattr__(name: str) -> Any:
    """Import a class on first use, because each needs a library that the others do not."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
