"""Plays greedy episodes with a policy to evaluate it, to collect observations, and to record one episode."""
