"""Builds the RLModule that is trained, with preprocessing for every supported observation space."""
