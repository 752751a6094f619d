"""Serves the policies of an MLflow model registry over HTTP, on Ray Serve."""
