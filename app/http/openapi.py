"""The OpenAPI document beyond what FastAPI writes of the routes by itself."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from app.access.keys import required_role


def amend_document(app: FastAPI, amend: Callable[[dict[str, Any]], None]) -> None:
    """Have `amend` change the document each time that it is asked for: it finds its own changes there, too."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        amend(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI's documentation gives


_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def document_keys(app: FastAPI) -> None:
    """Say which operations need a key, how it is given, and which role it has to have."""
    amend_document(app, _add_keys)


def _add_keys(document: dict[str, Any]) -> None:
    document.setdefault("components", {})["securitySchemes"] = _SCHEMES
    for path, item in document["paths"].items():
        for method, operation in item.items():
            role = required_role(method.upper(), path)
            if role is not None and "security" not in operation:
                operation["security"] = [{name: []} for name in _SCHEMES]
                operation["description"] = f"{operation.get('description', '')}\n\nRole: {role.name}.".strip()
