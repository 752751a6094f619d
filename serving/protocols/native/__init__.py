"""The native protocol: JSON observations in, JSON actions out."""
