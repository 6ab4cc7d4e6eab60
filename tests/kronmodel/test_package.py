"""The public names, and what importing the package costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kronmodel

PACKAGE = Path(kronmodel.__file__).parent


def test_public_names_are_sorted_and_all_there() -> None:
    assert kronmodel.__all__ == sorted(kronmodel.__all__)
    for name in kronmodel.__all__:
        assert getattr(kronmodel, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'KroneckerTriple'"):
        _ = kronmodel.KroneckerTriple


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_every_module_names_its_public_names(path: Path) -> None:
    tree = ast.parse(path.read_text())
    defined = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    }
    (names,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["__all__"]
    ]
    assert defined <= set(names)
    assert names == sorted(names, key=lambda name: (not name.isupper(), name))


def test_importing_the_package_and_its_command_line_loads_no_torch() -> None:
    heavy = "{'torch', 'onnxruntime', 'fastapi'}"
    code = f"import sys, kronmodel.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_kronmodel_knows_neither_the_service_nor_the_runtime() -> None:
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            assert not {module.split(".")[0] for module in modules} & {"app", "fastapi", "onnxruntime", "uvicorn"}, path
