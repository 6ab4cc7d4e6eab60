"""Request headers: read once for all that needs them, with the checks that RFC 9110 and 9112 ask of a server."""

from collections import Counter
from collections.abc import Mapping, Sequence

from app.errors import BadRequest, HttpVersionNotSupported, NotSupported

BLANKS = b" \t"
VERSIONS = ("1.0", "1.1", "2")  # of ASGI; uvicorn gives what the request line says, such as 2.0
SINGLE = frozenset(  # headers whose value is no list: two servers could each choose another one of two
    {
        b"authorization", b"content-length", b"content-type", b"host", b"inference-header-content-length", b"origin",
        b"x-api-key",
    }
)  # fmt: skip


def read_headers(raw: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Read headers by name: values without blanks around them, and those of the same name joined by commas.

    Args:
        raw: the headers as they arrived, names in lower case.
    """
    headers: dict[bytes, bytes] = {}
    for name, text in raw:
        value = text.strip(BLANKS)
        headers[name] = b"%b, %b" % (headers[name], value) if name in headers else value
    return headers


def check_headers(version: str, raw: Sequence[tuple[bytes, bytes]], headers: Mapping[bytes, bytes]) -> None:
    """Check what HTTP requires of every request.

    Args:
        version: of HTTP, as ASGI names it.
        raw: the headers as they arrived, names in lower case.
        headers: read from them by `read_headers`.

    Raises:
        HttpVersionNotSupported: it is not HTTP/1.0 or HTTP/1.1.
        BadRequest: a header that must be there once is missing or repeated.
        NotSupported: the body has a transfer coding other than chunked.
    """
    if version not in VERSIONS:
        raise HttpVersionNotSupported(f"request line: got HTTP/{version}, expected HTTP/1.1")
    if len(headers) < len(raw):
        for name, count in Counter(name for name, _ in raw).items():
            if count > 1 and name in SINGLE:
                raise BadRequest(f"{name.decode('latin-1').title()}: got this header {count} times, expected it once")
    if version == "1.1" and b"host" not in headers:
        raise BadRequest("Host: got no such header, expected the name or the address of this service")
    coding = headers.get(b"transfer-encoding", b"chunked")
    if coding.lower() != b"chunked":
        got = coding[:100].decode("latin-1")
        raise NotSupported(f"Transfer-Encoding: got {got!r}, expected chunked; Content-Encoding compresses a body")
