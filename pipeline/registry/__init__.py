"""Writes MLflow's model registry: registers, evaluates, promotes and rolls back versions, and keeps their history."""
