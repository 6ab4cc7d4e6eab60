"""Check a file for KServe against the models of KServe's Python package and the schemas of Kubernetes.

Usage: python -m tests.deploy.kserve_schema FILE

`make check-deploy` runs it, in the environment of deploy/requirements.txt. Of KServe's package only the models are
imported, so that its requirements, a web server and clients of clouds among them, need not be installed.
"""

import json
import re
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jsonschema
import yaml
from referencing import Registry, Resource

ROOTS = {
    ("serving.kserve.io/v1alpha1", "ServingRuntime"): "V1alpha1ServingRuntime",
    ("serving.kserve.io/v1beta1", "InferenceService"): "V1beta1InferenceService",
}
PRIMITIVES = {"str": "string", "int": "integer", "bool": "boolean", "float": "number"}
# Files of the package kubernetes-validate; "strict" refuses unknown fields.
KUBERNETES = "kubernetes-json-schema/v*-local-strict/_definitions.json"


def folder_of(package: str) -> Path:
    """Return the folder of an installed package, which is not imported."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"{package} is missing in this environment; install deploy/requirements.txt")
    return Path(next(iter(spec.submodule_search_locations)))


def kserve_models() -> ModuleType:
    """Import `kserve.models` without `kserve/__init__.py`, which imports the server."""
    package = ModuleType("kserve")
    package.__path__ = [str(folder_of("kserve"))]
    sys.modules["kserve"] = package
    return import_module("kserve.models")


def kubernetes_definitions() -> dict[str, Any]:
    """Read the schemas of the newest Kubernetes that kubernetes-validate has."""
    files = folder_of("kubernetes_validate").glob(KUBERNETES)
    newest = max(files, key=lambda file: [int(part) for part in re.findall(r"\d+", file.parent.name)])
    definitions: dict[str, Any] = json.loads(newest.read_text())
    return definitions


class Schemas:
    """JSON schemas of KServe's models, one for each model that is reached from a root.

    Args:
        models: module of the classes that OpenAPI's generator made.
        kubernetes: names of the definitions of Kubernetes.
        address: of the document with the definitions of Kubernetes.
    """

    def __init__(self, models: ModuleType, kubernetes: set[str], address: str) -> None:
        self._models = models
        self._kubernetes = kubernetes
        self._address = address
        self.definitions: dict[str, Any] = {}

    def of(self, kind: str) -> dict[str, Any]:
        """Return the schema of a type as the models name it, such as ``list[V1Container]``."""
        if kind in PRIMITIVES:
            return {"type": PRIMITIVES[kind]}
        if found := re.fullmatch(r"list\[(.*)\]", kind):
            return {"type": "array", "items": self.of(found[1])}
        if found := re.fullmatch(r"dict\(str, (.*)\)", kind):
            return {"type": "object", "additionalProperties": self.of(found[1])}
        if hasattr(self._models, kind):
            if kind not in self.definitions:
                self.definitions[kind] = {}  # a model may contain itself
                self.definitions[kind] = self._of_model(getattr(self._models, kind))
            return {"$ref": f"#/$defs/{kind}"}
        name = kind.replace("V1", "v1.", 1)
        names = [each for each in self._kubernetes if each.endswith((f"core.{name}", f"meta.{name}"))]
        if len(names) == 1:
            return {"$ref": f"{self._address}#/$defs/{names[0]}"}
        return {}  # of Knative, KEDA and others: not in these packages

    def _of_model(self, model: type) -> dict[str, Any]:
        kinds, keys = model.openapi_types, model.attribute_map
        empty = object.__new__(model)
        empty.local_vars_configuration = SimpleNamespace(client_side_validation=True)
        required = []
        for name in kinds:
            try:
                setattr(empty, name, None)
            except ValueError:  # the one place where the models say that a field is required
                required.append(keys[name])
        properties = {keys[name]: self.of(kind) for name, kind in kinds.items()}
        return {"type": "object", "additionalProperties": False, "properties": properties, "required": required}


def main() -> int:
    """Run the command line.

    Returns:
        0 if each document of the file is valid, else 1.
    """
    path = Path(sys.argv[1])
    kubernetes = kubernetes_definitions()
    address = kubernetes["$id"]
    schemas = Schemas(kserve_models(), set(kubernetes["$defs"]), address)
    registry: Registry[Any] = Registry().with_resource(address, Resource.from_contents(kubernetes))
    faults, count = [], 0
    for document in yaml.safe_load_all(path.read_text()):
        count += 1
        kind = ROOTS.get((document.get("apiVersion"), document.get("kind")))
        if kind is None:
            faults.append(f"document {count}: {document.get('apiVersion')} {document.get('kind')} is not of KServe")
            continue
        schema = {**schemas.of(kind), "$defs": schemas.definitions}
        found = jsonschema.Draft202012Validator(schema, registry=registry).iter_errors(document)
        faults += [f"document {count}: {fault.json_path}: {fault.message}" for fault in found]
    print(*(f"{path}: {fault}" for fault in faults), sep="\n", end="\n" if faults else "", file=sys.stderr)
    if not faults:
        print(f"ok -- {count} documents of {path} are valid for KServe")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
