"""Compares the observations of live episodes with those of a version's final evaluation, and alarms if they differ."""
