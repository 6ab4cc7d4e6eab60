"""onnxruntime session of all other servers, with the file and the options of kronmodel's; needs onnxruntime only."""

import os
from typing import Any

import numpy as np
import onnxruntime


class Network:
    """Model of the benchmark: rows in, probabilities out."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, rows: Any) -> Any:
        (probabilities,) = self._session.run(["probabilities"], {"input": np.asarray(rows, np.float32)})
        return probabilities
