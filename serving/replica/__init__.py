"""What each request passes through, whatever its protocol: authentication, limits, batching and metrics."""
