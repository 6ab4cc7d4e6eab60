"""Dependencies and documented errors that routes share."""

from typing import Annotated, Any

from fastapi import Depends, Request

from app.schemas import Error
from app.service import Service


async def get_service(request: Request) -> Service:
    """Get the service of the application that handles the request."""
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(get_service)]
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "model": Error,
        "description": "The request is wrong; the message says what was got and expected.",
    },
    "5XX": {"model": Error, "description": "The service failed, is overloaded, or took too long."},
}
