"""The default limits on one request."""

MAX_BODY_BYTES = 256 << 10
"""The maximum size of a body. For retries, HAProxy copies a buffer of this size for each request, however small. With
1 MiB, this copy rather than the replica would limit the rate of small requests."""

MAX_OBSERVATIONS = 4096
"""The maximum number of observations in one request."""

PROXY_TIMEOUT_S = 2
"""HAProxy sends a request again that a replica has not answered after this time, because the replica may hang."""

ANSWER_WITHIN_S = 1.5
"""A request that is not answered after this time gets an error, so that HAProxy does not repeat its computation."""

SLOWEST_S = 0.5
"""The maximum time that a policy may take for one observation, so that a request can wait for others before it."""
