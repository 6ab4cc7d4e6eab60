"""gzip and deflate: bounded decompression, and the choice of an encoding."""

import gzip
import tracemalloc
import zlib

import pytest

from app.errors import BadRequest, TooLarge, UnsupportedEncoding
from app.http import compression


def decode(body: bytes, name: str, *, max_bytes: int, max_ratio: int = 10_000) -> bytes:
    return compression.decode(body, name, max_bytes=max_bytes, max_ratio=max_ratio)


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_round_trips_limits_and_damaged_data(name: str) -> None:
    body = b"0123456789" * 1000
    assert decode(compression.encode(body, name), name, max_bytes=10_000) == body
    with pytest.raises(TooLarge, match="got more than 9999 bytes once inflated"):
        decode(compression.encode(body, name), name, max_bytes=9_999)
    for damaged in (b"", b"nothing", compression.encode(body, name)[:-5], compression.encode(body, name) + b"more"):
        with pytest.raises(BadRequest, match="body: "):
            decode(damaged, name, max_bytes=10_000)


def test_raw_deflate_and_several_gzip_members() -> None:
    raw = zlib.compressobj(wbits=-15)
    assert decode(raw.compress(b"abc") + raw.flush(), "deflate", max_bytes=10) == b"abc"
    assert decode(gzip.compress(b"abc") + gzip.compress(b"de"), "gzip", max_bytes=5) == b"abcde"
    with pytest.raises(TooLarge):
        decode(gzip.compress(b"abc") + gzip.compress(b"def"), "gzip", max_bytes=5)
    with pytest.raises(BadRequest, match="more than 64 gzip members"):
        decode(gzip.compress(b"") * 100, "gzip", max_bytes=5)
    with pytest.raises(UnsupportedEncoding, match="got 'br', expected gzip, deflate or identity"):
        decode(b"", "br", max_bytes=10)


def test_a_decompression_bomb_is_not_held_in_memory() -> None:
    bomb = gzip.compress(bytes(200 * 2**20), 9)
    tracemalloc.start()
    with pytest.raises(TooLarge):
        decode(bomb, "gzip", max_bytes=2**20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_the_ratio_of_inflation_is_limited_beyond_what_any_body_may_inflate_to() -> None:
    """A body of equal numbers shrinks to a thousandth, and is valid; more bytes than that need more bytes sent."""
    free, most = compression.FREE_BYTES, 2 * compression.FREE_BYTES
    assert len(decode(gzip.compress(bytes(free)), "gzip", max_bytes=most, max_ratio=1)) == free
    bomb = gzip.compress(bytes(free + 1))
    with pytest.raises(TooLarge, match=rf"more than {free} bytes .* {free}, or 7 times the {len(bomb)} bytes received"):
        decode(bomb, "gzip", max_bytes=most, max_ratio=7)
    assert len(decode(bomb, "gzip", max_bytes=most, max_ratio=2000)) == free + 1
    numbers = b",".join([str(index * 0.618034 % 1).encode() for index in range(900_000)])
    assert len(numbers) > free
    assert decode(gzip.compress(numbers), "gzip", max_bytes=2 * most, max_ratio=100) == numbers


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", "identity"),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("deflate, gzip", "gzip"),
        ("gzip;q=0.2, deflate;q=0.5", "deflate"),
        ("gzip;q=0", "identity"),
        ("identity", "identity"),
        ("identity;q=1, gzip;q=0.5", "identity"),
        ("gzip;q=much, br", "identity"),
        ("GZIP", "gzip"),
    ],
)
def test_accept_encoding(header: str, expected: str) -> None:
    assert compression.choose_encoding(header) == expected
