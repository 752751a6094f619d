"""Writes MLflow runs: parameters, metrics, figures, checkpoints and provenance."""
