"""Plays greedy episodes with a policy: returns, and a recording of one episode."""
