"""The OpenAPI document beyond what FastAPI writes of the routes by itself."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI


def amend_document(app: FastAPI, amend: Callable[[dict[str, Any]], None]) -> None:
    """Have `amend` change the document each time that it is asked for: it finds its own changes there, too."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        amend(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI's documentation gives
