"""Compressed request bodies (RFC 9110, section 8.4)."""

import zlib

from serving.http.asgi import Headers
from serving.replica.errors import BodyTooLarge, CompressionInvalid, ContentEncodingUnsupported

CODINGS = frozenset({b"gzip", b"x-gzip", b"deflate"})
AUTOMATIC = zlib.MAX_WBITS | 32
"""Makes zlib detect whether the format is gzip or its own, which HTTP calls deflate."""


def decoded(body: bytes, headers: Headers, limit: int) -> bytes:
    """Return the body without its content coding.

    Raises:
        ContentEncodingUnsupported: the coding is neither gzip nor deflate.
        CompressionInvalid: the body is not of its coding.
        BodyTooLarge: the decompressed body exceeds `limit` bytes. Nothing beyond the limit is decompressed.
    """
    codings = [value for name, value in headers if name == b"content-encoding"]
    if not codings:
        return body
    coding = b", ".join(codings).strip().lower()
    if coding in {b"", b"identity"}:
        return body
    if coding not in CODINGS:
        raise ContentEncodingUnsupported(coding.decode("latin-1"))
    decompressor = zlib.decompressobj(AUTOMATIC)
    try:
        content = decompressor.decompress(body, limit + 1)
    except zlib.error as error:
        raise CompressionInvalid(coding.decode(), str(error)) from None
    if len(content) > limit:
        raise BodyTooLarge(limit)
    if not decompressor.eof or decompressor.unused_data:
        reason = "bytes follow its end" if decompressor.eof else "it is cut off"
        raise CompressionInvalid(coding.decode(), reason)
    return content
