"""The default limit on the size of one request."""

MAX_BODY_BYTES = 256 << 10
"""The size of the body. HAProxy keeps a copy of each request to send it again, and it copies its whole buffer, full or
not: with 1 MiB it, not the replica, would limit the rate of small requests."""
