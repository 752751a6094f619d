"""Ray actors that the replicas of an application share."""
