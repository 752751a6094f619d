"""Runs an experiment: starts it, watches the returns of its episodes, raises the share, and decides."""
