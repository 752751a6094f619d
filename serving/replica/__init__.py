"""The parts of a replica that all protocols share: authentication, limits, batching, metrics and the served policy."""
