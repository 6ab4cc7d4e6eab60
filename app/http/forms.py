"""Multipart forms: a JSON request and files in one body."""

from collections.abc import Sequence

from fastapi import Request
from starlette.datastructures import UploadFile

from app.errors import BadRequest

MAX_REQUEST_BYTES = 64 * 1024  # of the JSON part

File = tuple[str, bytes]  # name and content


def is_form(request: Request) -> bool:
    """Whether the body of a request is a multipart form."""
    return request.headers.get("content-type", "").startswith("multipart/form-data")


async def read_form(request: Request, files: Sequence[str], expected: str) -> tuple[bytes, dict[str, File]]:
    """Read a form: the JSON text of its part `request` and its files.

    Args:
        request: with the form as its body.
        files: names of the parts that may be files.
        expected: completes the message "expected a file ..." for a part that is text.

    Returns:
        the JSON text, `{}` where the part is missing; and the files that are there, by name of their parts.

    Raises:
        BadRequest: a part has another name, is text where a file is expected, or is not UTF-8.
    """
    try:
        return await _read(request, files, expected)
    except UnicodeError:
        raise BadRequest("form: got text that its charset does not allow, expected UTF-8") from None


async def _read(request: Request, files: Sequence[str], expected: str) -> tuple[bytes, dict[str, File]]:
    async with request.form(max_files=len(files), max_fields=1, max_part_size=MAX_REQUEST_BYTES) as form:
        if unknown := form.keys() - {"request", *files}:
            raise BadRequest(f"form: got the part {min(unknown)[:100]!r}, expected {', '.join(('request', *files))}")
        body = form.get("request")
        text = await body.read(MAX_REQUEST_BYTES) if isinstance(body, UploadFile) else (body or "{}").encode()
        found: dict[str, File] = {}
        for name in files:
            part = form.get(name)
            if isinstance(part, str):
                raise BadRequest(f"{name}: got text, expected a file {expected}")
            if part is not None:
                named = part.filename or name
                named.encode()  # a name with lone surrogates could not be written into a report
                found[name] = (named, await part.read())
    return text, found
