"""Models by name, for the protocol's paths."""

from app.errors import UnknownModel
from app.models.model import Model
from app.service import Service


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
