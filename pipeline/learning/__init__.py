"""Trains policies from recorded experience, by behavior cloning or MARWIL, and if asked with PPO afterwards."""
