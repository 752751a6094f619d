"""Reads an experiment from its tag in the registry, and assigns each episode to the champion or the challenger."""
