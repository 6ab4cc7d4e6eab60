"""Response headers that restrict what a browser does with an answer."""

RawHeaders = list[tuple[bytes, bytes]]

# Nothing inline, and nothing from other origins; the page restores a drawing from a `data:` URL.
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
# Data is never rendered as a document, so the other headers do not concern it, and each one costs time at each request.
DATA_HEADERS: RawHeaders = [
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]


def complete(headers: RawHeaders, extra: RawHeaders) -> RawHeaders:
    """Add each of the `extra` headers whose name is missing from `headers`."""
    given = {name for name, _ in headers}
    return [*headers, *(header for header in extra if header[0] not in given)]
