"""Turns recorded experience into whole episodes, and describes, checks and forgets what was recorded."""
