"""The former home of `AsyncPolicyClient`, kept importable for existing code."""

from serving.client.async_client import AsyncPolicyClient

__all__ = ["AsyncPolicyClient"]
