"""What most people write first: FastAPI, a pydantic body, a plain function."""

from typing import Any

from fastapi import FastAPI
from onnx_session import Network
from pydantic import BaseModel

app = FastAPI()
network = Network()


class Body(BaseModel):
    inputs: list[list[float]]


@app.post("/predict")
def predict(body: Body) -> dict[str, Any]:
    return {"outputs": network(body.inputs).tolist()}
