"""Writes a version's bundle: the MLflow flavor, and the proof that the graph computes what the checkpoint computes."""
