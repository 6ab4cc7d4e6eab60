"""Content-Encoding: gzip and deflate, with an end to what a small body may become."""

import gzip
import zlib

from app.errors import BadRequest, TooLarge, UnsupportedEncoding

GZIP, DEFLATE, IDENTITY = "gzip", "deflate", "identity"
MIN_BYTES = 1024  # a shorter answer is not worth compressing
_LEVEL = 1
_GZIP_BITS = 31
_RAW_DEFLATE_BITS = -15


def decode(body: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """The body as it was before it was compressed.

    Raises:
        UnsupportedEncoding: neither gzip nor deflate.
        BadRequest: damaged, truncated, or followed by something else.
        TooLarge: more than `max_bytes`; no more than these are ever held.
    """
    if encoding == GZIP:
        bits = _GZIP_BITS
    elif encoding == DEFLATE:
        bits = zlib.MAX_WBITS if _is_zlib(body) else _RAW_DEFLATE_BITS
    else:
        raise UnsupportedEncoding(f"Content-Encoding: got {encoding[:40]!r}, expected gzip, deflate or identity")
    parts: list[bytes] = []
    size = 0
    rest = body
    while rest or not parts:
        stream = zlib.decompressobj(bits)
        try:
            part = stream.decompress(rest, max_bytes - size + 1)
        except zlib.error as error:
            raise BadRequest(f"body: not {encoding}: {error}") from None
        size += len(part)
        if size > max_bytes:
            raise TooLarge(f"body: got more than {max_bytes} bytes once inflated, expected at most so many")
        if not stream.eof:
            raise BadRequest(f"body: the {encoding} data is truncated")
        parts.append(part)
        rest = stream.unused_data
        if rest and encoding != GZIP:  # a gzip file may be several in a row
            raise BadRequest(f"body: got {len(rest)} bytes after the {encoding} data, expected none")
        if len(parts) > 64:
            raise BadRequest("body: got more than 64 gzip members, expected one")
    return b"".join(parts)


def encode(body: bytes, encoding: str) -> bytes:
    """The body compressed by gzip or deflate."""
    return gzip.compress(body, _LEVEL, mtime=0) if encoding == GZIP else zlib.compress(body, _LEVEL)


def accepted(header: str) -> str:
    """Which encoding an Accept-Encoding asks for; `identity` where it asks for none that we have."""
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


def _is_zlib(body: bytes) -> bool:
    """Whether it has zlib's header; some clients take "deflate" at its word and send none."""
    return len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
