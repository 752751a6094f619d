"""Clients for a policy server: `PolicyClient` needs requests, `AsyncPolicyClient` aiohttp, and nothing else."""

from typing import Any

from serving.client.client import PolicyClient

__all__ = ["AsyncPolicyClient", "PolicyClient"]


def __getattr__(name: str) -> Any:
    """Import the asyncio client on first use, because aiohttp is optional."""
    if name == "AsyncPolicyClient":
        from serving.client.async_client import AsyncPolicyClient

        return AsyncPolicyClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
