"""The arithmetic of off-policy evaluation, on arrays of recorded steps."""
