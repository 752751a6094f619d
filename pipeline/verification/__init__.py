"""The conformance suite: verifies that a registered version acts as RLlib does with the version's checkpoint."""
