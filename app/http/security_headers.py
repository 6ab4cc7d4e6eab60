"""Headers that tell a browser what it may do with an answer, which is little."""

RawHeaders = list[tuple[bytes, bytes]]

# Nothing inline, and nothing from elsewhere; data: is for a drawing that a reload brings back.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS: RawHeaders = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"cache-control", b"no-store"),
]
# Data is never a document: this is all that concerns it, and each header costs time at each request.
DATA_HEADERS: RawHeaders = [
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]


def complete(headers: RawHeaders, extra: RawHeaders) -> RawHeaders:
    """The headers with those of `extra` that they do not set themselves."""
    given = {name for name, _ in headers}
    return [*headers, *(header for header in extra if header[0] not in given)]
