"""API keys in the OpenAPI document, where the service asks for them."""

from typing import Any

from fastapi import FastAPI

from app.access.keys import needed_role
from app.http.openapi import amend_document

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
            role = needed_role(method.upper(), path)
            if role is not None and "security" not in operation:
                operation["security"] = [{name: []} for name in _SCHEMES]
                operation["description"] = f"{operation.get('description', '')}\n\nRole: {role.name}.".strip()
