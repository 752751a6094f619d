"""Loads bundles and computes actions from observations, without HTTP and without the registry."""
