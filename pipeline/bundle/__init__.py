"""Writes the bundle of a version: the graph that serves, its description, and the MLflow model that contains both.

A bundle is written only if its graph computes what its checkpoint computes.
"""
