"""What routes ask for."""

from typing import Annotated, Any

from fastapi import Depends, Request

from app.errors import UnknownModel
from app.models.model import Model
from app.schemas import Error
from app.service import Service


async def get_service(request: Request) -> Service:
    """The service of the app that answers."""
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(get_service)]
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Error, "description": "The request is wrong; the message says what was got and expected."},
    "5XX": {"model": Error, "description": "The service failed, is overloaded, or took too long."},
}


def served(service: Service, name: str, version: str | None = None) -> Model:
    """As `Repository.get`; an unknown model is told in Triton's words, which its clients' own examples look for.

    Raises:
        NotFound: there is none.
        NotReady: it is in the folder, but not loaded.
    """
    try:
        return service.repository.get(name, version)
    except UnknownModel as error:
        raise UnknownModel(f"Request for unknown model: {str(error).removeprefix('models: ')}") from None
