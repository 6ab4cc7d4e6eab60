"""Models of scikit-learn, xgboost and lightgbm as conformance cases; `tabular.py` exports them."""

import pickle
import subprocess
from collections.abc import Iterator
from pathlib import Path

import onnx

from tests.conformance.cases import Case, different_requests
from tests.conformance.package_cases import FOLDER, HERE


def tabular_cases(python: Path) -> Iterator[Case]:
    """One case for each model.

    Args:
        python: the interpreter of the environment that has these libraries.
    """
    folder = FOLDER / "tabular"
    subprocess.run([python, HERE / "tabular.py", folder], check=True, stdout=subprocess.DEVNULL)
    for path in sorted(folder.glob("*.onnx")):
        with path.with_suffix(".pkl").open("rb") as file:
            feeds, outputs = pickle.load(file)
        graph = onnx.load(path).graph
        yield Case(
            name=path.stem,
            category="tabular",
            model=path.read_bytes(),
            requests=different_requests(feeds),
            expected={
                value.name: values for value, values in zip(graph.output, outputs, strict=True) if values is not None
            },
            rtol=1e-3,
            atol=1e-4,
        )
