"""FastAPI's models of OpenAPI, compiled when somebody asks for the document and not at every start.

They cannot be told so one by one; they inherit it.
"""

from pydantic import BaseModel

BaseModel.model_config["defer_build"] = True
try:
    import fastapi.openapi.models  # noqa: F401
finally:
    del BaseModel.model_config["defer_build"]
