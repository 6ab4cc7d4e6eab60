"""Ray Serve deployment of one replica."""

import os
import signal
from typing import Any

import ray
from onnx_session import Network
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0})
class Predict:
    def __init__(self) -> None:
        self.network = Network()

    async def __call__(self, request: Request) -> dict[str, Any]:
        return {"outputs": self.network((await request.json())["inputs"]).tolist()}


if __name__ == "__main__":
    ray.init(include_dashboard=False, num_cpus=2, log_to_driver=False)
    serve.start(
        logging_config={"enable_access_log": False},
        http_options={"host": "127.0.0.1", "port": int(os.environ["BENCH_PORT"])},
    )
    serve.run(Predict.bind(), route_prefix="/predict")
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    serve.shutdown()
    ray.shutdown()
