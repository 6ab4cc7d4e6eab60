"""The public names, and what importing the package costs."""

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import kronmodel
import kronmodel.native

PACKAGE = Path(kronmodel.__file__).parent
SUB_PACKAGES = sorted(path for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)
LAZY = {"compress/__init__.py", "native/__init__.py"}
MODULES = sorted({*PACKAGE.rglob("*.py")} - {*SUB_PACKAGES})


def relative(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_public_names_are_sorted_and_all_there() -> None:
    assert kronmodel.__all__ == sorted(kronmodel.__all__)
    for name in kronmodel.__all__:
        assert getattr(kronmodel, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'KroneckerTriple'"):
        _ = kronmodel.KroneckerTriple


def test_dir_lists_what_is_public() -> None:
    assert dir(kronmodel) == sorted([*kronmodel.__all__, "__version__"])


def test_native_names_are_sorted_and_all_there() -> None:
    assert dir(kronmodel.native) == kronmodel.native.__all__ == sorted(kronmodel.native.__all__)
    for name in kronmodel.native.__all__:
        assert getattr(kronmodel.native, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'save'"):
        _ = kronmodel.native.save


# `kronmodel.native.load` and the names of `kronmodel.compress` are public under these names, and loaded when first
# used, like the names of the package itself.
@pytest.mark.parametrize("path", [each for each in SUB_PACKAGES if relative(each) not in LAZY], ids=relative)
def test_the_init_of_a_sub_package_is_a_docstring(path: Path) -> None:
    (only,) = ast.parse(path.read_text()).body
    assert isinstance(only, ast.Expr)
    assert isinstance(only.value, ast.Constant)


@pytest.mark.parametrize("path", MODULES, ids=relative)
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


@pytest.mark.parametrize("path", [path for path in MODULES if ">>>" in path.read_text()], ids=relative)
def test_examples_in_docstrings_run(path: Path) -> None:
    module = importlib.import_module(".".join(["kronmodel", *path.relative_to(PACKAGE).with_suffix("").parts]))
    result = doctest.testmod(module, extraglobs={"torch": torch})
    assert result.attempted > 0
    assert result.failed == 0


def test_importing_the_package_and_its_command_line_is_cheap() -> None:
    heavy = "{'torch', 'numpy', 'onnx', 'onnxruntime', 'plotly', 'fastapi'}"
    code = f"import sys, kronmodel.cli.main; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_kronmodel_knows_neither_the_service_nor_the_runtime() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            forbidden = {"app", "fastapi", "uvicorn"}
            if not {"compress", "predict"} & set(path.parts):  # these run models
                forbidden.add("onnxruntime")
            assert not {module.split(".")[0] for module in modules} & forbidden, path
