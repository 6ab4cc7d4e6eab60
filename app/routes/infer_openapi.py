"""The inference paths in the OpenAPI document, with examples for the default twin."""

from typing import Any

_ONE = [
    value for row in range(28) for value in ([0.0] * 13 + [0.9, 1.0] + [0.0] * 13 if 4 <= row < 24 else [0.0] * 28)
]  # a hand-drawn 1
_INPUT = {"name": "input", "shape": [1, 784], "datatype": "FP32", "data": _ONE}

_PARAMETERS = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
_SHAPE = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_DATATYPE = {
    "type": "string",
    "enum": [
        "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32",
        "FP64", "BYTES",
    ],
}  # fmt: skip
_DATA = {"type": "array", "items": {}, "description": "flat or nested, row-major; absent if the tensor is binary"}

REQUEST_SCHEMA: dict[str, Any] = {
    "title": "InferRequest",
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "maxLength": 1024, "description": "returned in the response"},
        "parameters": _PARAMETERS
        | {
            "description": "`binary_data_output`: all outputs binary; `timeout`: most microseconds for waiting and "
            "running; `receipt`: add the answer's provenance to the response's parameters"
        },
        "inputs": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "shape", "datatype"],
                "properties": {
                    "name": {"type": "string"},
                    "shape": _SHAPE,
                    "datatype": _DATATYPE,
                    "parameters": _PARAMETERS | {"description": "`binary_data_size`: its bytes after the JSON"},
                    "data": _DATA,
                },
            },
        },
        "outputs": {
            "type": "array",
            "description": "default: all of them",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string"},
                    "parameters": _PARAMETERS
                    | {"description": "`binary_data`: as binary data; `classification`: the n largest with labels"},
                },
            },
        },
    },
}

RESPONSE_SCHEMA: dict[str, Any] = {
    "title": "InferResponse",
    "type": "object",
    "required": ["model_name", "model_version", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "shape", "datatype"],
                "properties": {
                    "name": {"type": "string"},
                    "shape": _SHAPE,
                    "datatype": _DATATYPE,
                    "parameters": _PARAMETERS,
                    "data": _DATA,
                },
            },
        },
    },
}

EXAMPLES: dict[str, Any] = {
    "one": {"summary": "A hand-drawn 1, all outputs", "value": {"inputs": [_INPUT]}},
    "classification": {
        "summary": "The three likeliest digits",
        "value": {
            "id": "42",
            "inputs": [_INPUT],
            "outputs": [{"name": "probabilities", "parameters": {"classification": 3}}],
        },
    },
}

_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}


_PATH_EXAMPLES = {"name": "mnist-kronecker", "version": "1"}
_ENCODING = {"type": "string", "enum": ["gzip", "deflate", "identity"]}
_HEADERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (
        "Inference-Header-Content-Length",
        "bytes of JSON before the binary tensors; 0 if the body is the only tensor",
        {"type": "integer", "minimum": 0},
    ),
    ("Content-Encoding", "of the request", _ENCODING),
    ("Accept-Encoding", "of the answer: gzip or deflate; others are ignored", {"type": "string", "example": "gzip"}),
)


def document(path: str) -> dict[str, Any]:
    """Write the OpenAPI path item of an inference path.

    Args:
        path: template with the placeholder `{name}`, and maybe `{version}`.
    """
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "example": _PATH_EXAMPLES[name], "schema": {"type": "string"}}
        for name in names
    ]
    parameters += [
        {"name": header, "in": "header", "description": meaning, "schema": schema}
        for header, meaning, schema in _HEADERS
    ]
    return {
        "post": {
            "tags": ["inference"],
            "summary": "Infer" if len(names) == 1 else "Infer by one version",
            "description": "Inference by the Open Inference Protocol v2, with its binary tensor and classification "
            "extensions. An `application/octet-stream` body is the JSON, followed by the binary tensors in order.",
            "operationId": "infer" if len(names) == 1 else "infer_version",
            "parameters": parameters,
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": REQUEST_SCHEMA, "examples": EXAMPLES},
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                },
            },
            "responses": {
                "200": {
                    "description": "The outputs",
                    "content": {
                        "application/json": {"schema": RESPONSE_SCHEMA},
                        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                    },
                },
                "4XX": {
                    "description": "The request is wrong; the message says what was got and expected.",
                    "content": _ERROR,
                },
                "5XX": {"description": "The service failed, is overloaded, or took too long.", "content": _ERROR},
            },
        }
    }
