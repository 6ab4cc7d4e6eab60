"""How an answer came about: which file gave it, where, and in what time."""

from typing import Any

from app.inference.batching import Inference
from app.models.model import Model


def receipt(model: Model, inference: Inference) -> dict[str, Any]:
    """What a request gets that asks for it."""
    return {
        "model_sha256": model.artifact.sha256,
        "provider": model.engine.provider,
        "threads": model.engine.threads,
        "queue_us": inference.queue_ns / 1000,
        "compute_us": inference.compute_ns / 1000,
        "batch_size": inference.batch_size,
    }
