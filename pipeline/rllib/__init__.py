"""Trains with RLlib's PPO: the trainer, the sampling and learning loops, checkpoints, and Ray's start and stop."""
