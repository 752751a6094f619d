"""Learns from recorded episodes with RLlib's MARWIL, whose special case is behavior cloning."""
