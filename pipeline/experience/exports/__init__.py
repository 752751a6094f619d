"""Writes whole episodes in the formats of other libraries: RLlib, Minari and d3rlpy."""
