"""Re-exports `AsyncPolicyClient` for code that was written before it moved to `serving.client`."""

from serving.client.async_client import AsyncPolicyClient

__all__ = ["AsyncPolicyClient"]
