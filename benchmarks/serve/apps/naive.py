"""Minimal FastAPI service: a pydantic body and a synchronous route that runs the session."""

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
