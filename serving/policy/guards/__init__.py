"""Guards a policy in service: calls that take too long are stopped, and numbers that are not finite are errors."""
