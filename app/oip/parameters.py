"""The `parameters` of a request, of its inputs and of its outputs: flat maps, some of whose names mean something."""

from collections.abc import Mapping
from typing import Any

from app.errors import BadRequest, NotSupported
from app.parsing import name_of

MAX_TIMEOUT_US = 2**53

Parameters = Mapping[str, Any]
_NONE: Parameters = {}
_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")


def read_parameters(entry: dict[str, Any], place: str) -> Parameters:
    """The flat map of an entry; nothing is an empty one.

    Raises:
        BadRequest: it is not flat.
    """
    parameters = entry.get("parameters")
    if parameters is None:
        return _NONE
    if type(parameters) is not dict:
        raise BadRequest(f"{place}: parameters: got {name_of(parameters)}, expected an object")
    for key, value in parameters.items():
        if type(value) not in {str, int, float, bool}:
            raise BadRequest(
                f"{place}: parameter {key[:100]!r}: got {name_of(value)}, expected a string, number or boolean"
            )
    return parameters


def read_flag(parameters: Parameters, key: str, place: str) -> bool:
    """A boolean, false where it is not given.

    Raises:
        BadRequest: it is something else.
    """
    value = parameters.get(key, False)
    if type(value) is not bool:
        raise BadRequest(f"{place}: {key}: got {value!r:.40}, expected true or false")
    return value


def read_timeout(parameters: Parameters) -> float | None:
    """Seconds from a request's `timeout` in microseconds; None where it has none.

    Raises:
        BadRequest: it is no number of microseconds, or a name is reserved.
        NotSupported: the request asks for sequences or priorities.
    """
    if not parameters:
        return None
    for key in _SEQUENCE:
        if parameters.get(key):
            raise NotSupported(f"request: {key}: sequences are not supported")
    if parameters.get("priority"):
        raise NotSupported("request: priority: priorities are not supported; all requests have the same")
    for key in parameters:
        if key.startswith("triton_"):
            raise BadRequest(f"request: parameter {key[:100]!r}: names that start with triton_ are reserved")
    timeout = parameters.get("timeout", 0)
    if type(timeout) is not int or not 0 <= timeout <= MAX_TIMEOUT_US:
        raise BadRequest(f"request: timeout: got {timeout!r:.40}, expected a number of microseconds")
    return timeout / 1e6 if timeout else None


def refuse_shared_memory(parameters: Parameters, place: str) -> None:
    """A tensor's data has to be in the request.

    Raises:
        NotSupported: it is elsewhere.
    """
    if any(key.startswith("shared_memory_") for key in parameters):
        raise NotSupported(f"{place}: shared memory is not supported; send the data in the request")
