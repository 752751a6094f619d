"""Reads MLflow's model registry: resolves URIs to versions, and fetches and caches their bundles."""
