"""BentoML service of one worker."""

from typing import Any

import bentoml
import numpy as np
from onnx_session import Network


@bentoml.service(workers=1)
class Service:
    def __init__(self) -> None:
        self.network = Network()

    @bentoml.api
    def predict(self, inputs: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        result: np.ndarray[Any, Any] = self.network(inputs)
        return result
