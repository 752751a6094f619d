"""The default limits on one request."""

MAX_BODY_BYTES = 256 << 10
"""The maximum size of a body. For retries, HAProxy copies a buffer of this size for each request, however small. With
1 MiB, this copy rather than the replica would limit the rate of small requests."""

MAX_OBSERVATIONS = 4096
"""The maximum number of observations in one request."""
