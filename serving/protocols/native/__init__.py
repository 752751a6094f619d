"""The native protocol: JSON observations in requests, JSON actions in responses."""
