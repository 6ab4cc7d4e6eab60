"""API keys in the OpenAPI document, where the service asks for them."""

from typing import Any

from fastapi import FastAPI

from app.keys import needed_role

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def document_keys(app: FastAPI) -> None:
    """Say which operations need a key, how it is given, and which role it has to have."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        schema = generate()
        schema.setdefault("components", {})["securitySchemes"] = _SCHEMES
        for path, item in schema["paths"].items():
            for method, operation in item.items():
                role = needed_role(method.upper(), path)
                if role is not None and "security" not in operation:
                    operation["security"] = [{name: []} for name in _SCHEMES]
                    operation["description"] = f"{operation.get('description', '')}\n\nRole: {role.name}.".strip()
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI's documentation gives
