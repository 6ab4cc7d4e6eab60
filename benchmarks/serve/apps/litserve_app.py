"""LitServe server of one worker."""

import os
from typing import Any

import litserve
from onnx_session import Network


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.network = Network()

    def decode_request(self, request: dict[str, Any]) -> Any:
        return request["inputs"]

    def predict(self, x: Any) -> Any:
        return self.network(x)

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"outputs": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=1)
    port = int(os.environ["BENCH_PORT"])
    server.run(host="127.0.0.1", port=port, num_api_servers=1, generate_client_file=False, log_level="warning")
