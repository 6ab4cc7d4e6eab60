"""The metadata of the server and of a model, and a model's configuration, as the protocol's JSON."""

from collections.abc import Sequence
from typing import Any

from app.inference.datatypes import DATATYPES, Tensor
from app.oip.signature import Signature

EXTENSIONS = (
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "binary_tensor_data",
    "statistics",
)
PLATFORM = "onnx_onnxv1"


def server_metadata(version: str) -> dict[str, Any]:
    """Server metadata with the package's version."""
    return {"name": "kronmodel", "version": version, "extensions": list(EXTENSIONS)}


def model_metadata(name: str, versions: Sequence[str], signature: Signature) -> dict[str, Any]:
    """Model metadata with the versions in service."""
    return {
        "name": name,
        "versions": list(versions),
        "platform": PLATFORM,
        "inputs": [_tensor(tensor) for tensor in signature.inputs.values()],
        "outputs": [_tensor(tensor) for tensor in signature.outputs.values()],
    }


def model_config(name: str, versions: Sequence[str], signature: Signature) -> dict[str, Any]:
    """A model's configuration in Triton's format; `dims` leave out the batch axis, if there is one."""
    return {
        "name": name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "version_policy": {"specific": {"versions": [int(version) for version in versions]}},
        "max_batch_size": signature.max_batch if signature.batchable else 0,
        "input": [_config(tensor, signature) for tensor in signature.inputs.values()],
        "output": [_config(tensor, signature) for tensor in signature.outputs.values()],
        "default_model_filename": "model.onnx",
    }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _config(tensor: Tensor, signature: Signature) -> dict[str, Any]:
    dims = tensor.shape[1:] if signature.batchable else tensor.shape
    return {"name": tensor.name, "data_type": DATATYPES[tensor.datatype].config_name, "dims": list(dims)}
