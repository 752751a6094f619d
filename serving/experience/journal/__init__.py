"""The journal of a replica: binary records in memory-mapped segments, which survive the replica's death."""
