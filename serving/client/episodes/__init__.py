"""Episodes that are played with a policy server: what a client knows of each one, and reports of it."""
