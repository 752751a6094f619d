"""What a candidate is tried on in its child process: observations of the whole space, and live ones."""
