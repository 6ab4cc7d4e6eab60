"""Content-Encoding and Accept-Encoding: gzip and deflate, with limits on the decompressed size."""

import asyncio
import gzip
import zlib

from app.errors import BadRequest, TooLarge, UnsupportedEncoding
from app.settings import Settings

GZIP, DEFLATE, IDENTITY = "gzip", "deflate", "identity"
MIN_BYTES = 1024  # a shorter answer is not worth compressing
# Inflated bytes that any body may have, whatever its ratio: equal numbers shrink to a thousandth, and a full batch of
# rows of 784 such numbers is a valid request.
FREE_BYTES = 8 * 2**20
MAX_MEMBERS = 64  # of a gzip body; an empty one costs 20 bytes and a decompressor of its own
_LEVEL = 1
_GZIP_BITS = 31
_RAW_DEFLATE_BITS = -15


async def decode_body(body: bytes, content_encoding: bytes, settings: Settings) -> bytes:
    """Decompress a request body in a thread.

    Args:
        body: the bytes received.
        content_encoding: value of the header `Content-Encoding`; empty or `identity` leaves the body as it is.
        settings: with the limits of the decompressed size.

    Raises:
        UnsupportedEncoding, BadRequest, TooLarge: as `decode`.
    """
    name = content_encoding.decode("latin-1").strip().lower()
    if name in {"", IDENTITY}:
        return body
    most, ratio = settings.max_body_bytes, settings.max_inflation
    return await asyncio.to_thread(decode, body, name, max_bytes=most, max_ratio=ratio)


def decode(body: bytes, encoding: str, *, max_bytes: int, max_ratio: int) -> bytes:
    """Decompress a body.

    Args:
        body: the bytes received.
        encoding: `gzip` or `deflate`.
        max_bytes: most bytes of the result.
        max_ratio: most bytes of the result for each byte of the body, beyond the first `FREE_BYTES`.

    Raises:
        UnsupportedEncoding: the encoding is neither gzip nor deflate.
        BadRequest: the data is damaged, truncated, or followed by other bytes.
        TooLarge: the result is longer than the limits allow, at which decompression stops.
    """
    limit, expected = max_bytes, f"at most {max_bytes} (KRON_MAX_BODY_BYTES)"
    if max(FREE_BYTES, max_ratio * len(body)) < max_bytes:
        limit = max(FREE_BYTES, max_ratio * len(body))
        expected = f"at most {FREE_BYTES}, or {max_ratio} times the {len(body)} bytes received (KRON_MAX_INFLATION)"
    if encoding == GZIP:
        bits = _GZIP_BITS
    elif encoding == DEFLATE:
        bits = zlib.MAX_WBITS if _has_zlib_header(body) else _RAW_DEFLATE_BITS
    else:
        raise UnsupportedEncoding(f"Content-Encoding: got {encoding[:40]!r}, expected gzip, deflate or identity")
    parts: list[bytes] = []
    size = 0
    rest = body
    while rest or not parts:
        stream = zlib.decompressobj(bits)
        try:
            part = stream.decompress(rest, limit - size + 1)
        except zlib.error as error:
            raise BadRequest(f"body: not {encoding}: {error}") from None
        size += len(part)
        if size > limit:
            raise TooLarge(f"body: got more than {limit} bytes once inflated, expected {expected}")
        if not stream.eof:
            raise BadRequest(f"body: the {encoding} data is truncated")
        parts.append(part)
        rest = stream.unused_data
        if rest and encoding != GZIP:  # a gzip file may consist of several members
            raise BadRequest(f"body: got {len(rest)} bytes after the {encoding} data, expected none")
        if len(parts) > MAX_MEMBERS:
            raise BadRequest(f"body: got more than {MAX_MEMBERS} gzip members, expected one")
    return b"".join(parts)


def encode(body: bytes, encoding: str) -> bytes:
    """Compress a body by gzip or deflate."""
    return gzip.compress(body, _LEVEL, mtime=0) if encoding == GZIP else zlib.compress(body, _LEVEL)


def choose_encoding(header: str) -> str:
    """Choose gzip, deflate or `identity` for an answer by the request's `Accept-Encoding`."""
    weights: dict[str, float] = {}
    for item in header.lower().split(",")[:20]:
        name, _, parameter = item.partition(";")
        key, _, value = parameter.partition("=")
        try:
            weights[name.strip()] = float(value) if key.strip() == "q" else 1.0
        except ValueError:
            weights[name.strip()] = 0.0
    best = max((GZIP, DEFLATE), key=lambda name: weights.get(name, 0.0))
    return best if weights.get(best, 0.0) > 0 and weights[best] >= weights.get(IDENTITY, 0.0) else IDENTITY


def _has_zlib_header(body: bytes) -> bool:
    """Tell zlib's format from raw deflate data, which some clients send as `deflate`."""
    return len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
