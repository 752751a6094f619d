"""Summarizes the observations of a policy's final evaluation: the reference that drift is measured against."""
