"""The `parameters` of a request, its inputs and its outputs: flat JSON objects with some reserved names."""

from collections.abc import Mapping
from typing import Any

from app.errors import BadRequest, NotSupported
from app.parsing import name_of

MAX_TIMEOUT_US = 2**53

Parameters = Mapping[str, Any]
_NONE: Parameters = {}
_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")


def read_parameters(entry: dict[str, Any], place: str) -> Parameters:
    """Read the parameters of a request, an input or an output; empty if it has none.

    Args:
        entry: the JSON object with the key `parameters`.
        place: of the entry, for messages.

    Raises:
        BadRequest: they are not an object, or a value is a list, an object or null.
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
    """Read a boolean parameter, false if it is not given.

    Raises:
        BadRequest: it is not a boolean.
    """
    value = parameters.get(key, False)
    if type(value) is not bool:
        raise BadRequest(f"{place}: {key}: got {value!r:.40}, expected true or false")
    return value


def read_timeout(parameters: Parameters) -> float | None:
    """Check a request's parameters and read its `timeout` in seconds; None if it has none.

    Raises:
        BadRequest: the timeout is not a number of microseconds, or a parameter's name is reserved.
        NotSupported: the request asks for a sequence or a priority.
    """
    if not parameters:
        return None
    for key in _SEQUENCE:
        if parameters.get(key):
            raise NotSupported(f"request: {key}: sequences are not supported")
    if parameters.get("priority"):
        raise NotSupported("request: priority: priorities are not supported; all requests have the same one")
    for key in parameters:
        if key.startswith("triton_"):
            raise BadRequest(f"request: parameter {key[:100]!r}: names that start with triton_ are reserved")
    timeout = parameters.get("timeout", 0)
    if type(timeout) is not int or not 0 <= timeout <= MAX_TIMEOUT_US:
        raise BadRequest(f"request: timeout: got {timeout!r:.40}, expected a number of microseconds")
    return timeout / 1e6 if timeout else None


def refuse_shared_memory(parameters: Parameters, place: str) -> None:
    """Refuse a tensor in shared memory.

    Raises:
        NotSupported: the parameters name a region of shared memory.
    """
    if any(key.startswith("shared_memory_") for key in parameters):
        raise NotSupported(f"{place}: shared memory is not supported; send the tensor in the request, as binary data")
