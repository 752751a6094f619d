"""Off-policy evaluation: how good a version would be, from the recorded episodes of others."""
