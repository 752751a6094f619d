"""Reads MLflow's model registry: resolves URIs, fetches and caches bundles, and polls for promotions."""
