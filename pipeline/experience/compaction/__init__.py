"""Joins decisions with what clients reported of them, and writes whole episodes: two passes in constant memory."""
