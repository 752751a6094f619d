"""Writes MLflow's model registry: registration, promotion past the gate, rollback and history."""
