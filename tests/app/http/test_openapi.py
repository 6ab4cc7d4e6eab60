"""The OpenAPI document, and when FastAPI's models of it are compiled."""

import subprocess
import sys

import httpx


def test_openapi_describes_requests_errors_and_examples(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert "/v2/health/ready" in paths
    for path in ("/api/predict", "/api/compare", "/api/trainings"):
        operation = paths[path]["post"]
        content = operation["requestBody"]["content"]["application/json"]
        assert content["examples"]
        assert content["schema"]["additionalProperties"] is False
        assert "422" not in operation["responses"]
        assert operation["responses"]["4XX"]["content"]["application/json"]["schema"]["$ref"].endswith("/Error")


def test_fastapis_models_of_openapi_are_compiled_with_the_document_and_other_models_at_once() -> None:
    script = """
from app.main import create_app
from app.settings import Settings
from fastapi.openapi.models import OpenAPI
from pydantic import BaseModel

class Other(BaseModel):
    x: int

app = create_app(Settings(reports="off"))
print(Other.__pydantic_complete__, OpenAPI.__pydantic_complete__, len(app.openapi()["paths"]) > 20,
      OpenAPI.__pydantic_complete__)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "True", "True"]
