"""What the replicas of a node or of an application do once for all: polls of the registry, and trials of versions."""
