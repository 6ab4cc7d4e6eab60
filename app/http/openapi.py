"""The OpenAPI document: additions to FastAPI's own, and deferred compilation of FastAPI's pydantic models.

`app.main` imports this module before FastAPI.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from app.access.keys import required_role

if TYPE_CHECKING:
    from fastapi import FastAPI

# Pydantic compiles FastAPI's models of OpenAPI when they are imported, at every start, though few processes ever write
# the document. `defer_build` postpones that to the first use; FastAPI has no option for it, but its models inherit it.
BaseModel.model_config["defer_build"] = True
try:
    import fastapi.openapi.models  # noqa: F401
finally:
    del BaseModel.model_config["defer_build"]

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def amend_document(app: "FastAPI", amend: Callable[[dict[str, Any]], None]) -> None:
    """Change the OpenAPI document of an application.

    Args:
        app: writes the document.
        amend: changes the document in place; called at each request for it, so its changes may be there already.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        amend(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to change it


def document_keys(app: "FastAPI") -> None:
    """Document which operations need an API key, how it is sent, and which role it must have."""
    amend_document(app, _add_keys)


def _add_keys(document: dict[str, Any]) -> None:
    document.setdefault("components", {})["securitySchemes"] = _SCHEMES
    for path, item in document["paths"].items():
        for method, operation in item.items():
            role = required_role(method.upper(), path)
            if role is not None and "security" not in operation:
                operation["security"] = [{name: []} for name in _SCHEMES]
                operation["description"] = f"{operation.get('description', '')}\n\nRole: {role.name}.".strip()
