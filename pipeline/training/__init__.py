"""Trains one policy: the loop, its state and workspace, its evaluations, and the training run around it."""
