"""Confines a child process that runs what is not trusted yet: the trial of a new version, and `/play`'s environment."""
