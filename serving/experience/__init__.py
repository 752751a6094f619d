"""Records each decision with the episode that it belongs to, and what clients report of it."""
