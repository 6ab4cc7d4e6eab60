"""httptools' parser of requests, and the parsing of requests that offer another protocol.

httptools ends a request with `Connection: Upgrade` after its headers, whether or not the server accepts the offer: it
would lose the body, and take it for the next request (https://github.com/Kludex/uvicorn/issues/2722). Such a request
is parsed again without its header `Upgrade`, which HTTP lets a server ignore (RFC 9110, 7.8).
"""

from collections.abc import Iterable

from httptools import HttpRequestParser


def new_parser(callbacks: object) -> HttpRequestParser:
    """Create a parser of the requests of one connection, configured as uvicorn configures its own.

    Args:
        callbacks: object with httptools' callbacks, such as `on_header`.
    """
    parser = HttpRequestParser(callbacks)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)  # requests sent ahead do not spoil the last one
    return parser


def headers_without_upgrade(
    method: bytes, target: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]
) -> bytes:
    """Write the request line and the headers of a parsed request again, without the header `Upgrade`."""
    lines = [b"%b %b HTTP/%b\r\n" % (method, target, version.encode())]
    lines += [b"%b: %b\r\n" % header for header in headers if header[0] != b"upgrade"]
    return b"".join([*lines, b"\r\n"])
