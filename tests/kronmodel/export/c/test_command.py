"""The command ``kronmodel export --to c|header|arduino``: its files, its libraries, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kronmodel import native
from kronmodel.cli import main as cli
from kronmodel.errors import LoadError
from kronmodel.export.c.network import identifier
from kronmodel.export.card import CARD_KEY
from tests.kronmodel.export.c.graphs import Graph, outputs_of
from tests.kronmodel.export.c.programs import STRICT
from tests.test_readme import ROOT

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


def classifier(folder: Path, **card: Any) -> Path:
    """Write a classifier of 12 features with samples."""
    graph = Graph(np.random.default_rng(0), 12)
    graph.kronecker((3, 4), (4, 2), [False, False, True], "gelu", "tanh")
    graph.dense(3)
    graph.classify()
    path = graph.save(folder / "net.onnx", (12,))
    if card:
        model = onnx.load(path)
        model.metadata_props.add(key=CARD_KEY, value=json.dumps(card))
        onnx.save(model, path)
    np.savez(folder / "samples.npz", inputs=np.random.default_rng(1).normal(0, 1, (20, 12)).astype(np.float32))
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def export(*arguments: object) -> int:
    return cli.main(["export", *map(str, arguments)])


@pytest.mark.parametrize(
    ("name", "expected"),
    [("mnist-kronecker", "mnist_kronecker"), ("3 digits", "model_3_digits"), ("int", "model_int"), ("é*/", "model"),
     ("_x_", "x"), ("Class", "model_class"), ("", "model")],
)  # fmt: skip
def test_names_become_identifiers(name: str, expected: str) -> None:
    assert identifier(name) == expected


@needs_compiler
def test_names_and_labels_are_any_text(here: Path) -> None:
    labels = ['a"b\\', "??/ */ \n", "käse"]
    title = "3 */ #define\n?? name\\"
    path = classifier(here, name=title, labels=labels, preprocessing="none */ ??/")
    name = identifier(title)
    assert export(path, "--to", "c") == 0
    (here / "main.c").write_text(
        f'#include <stdio.h>\n#include "{name}.h"\nint main(void)\n{{\n'
        f"    static const char *const labels[] = {name.upper()}_LABELS;\n"
        '    for (int i = 0; i < 3; i++) printf("%s%c", labels[i], 0);\n    return 0;\n}\n'
    )
    subprocess.run(["cc", *STRICT, "-Wtrigraphs", "-o", "main", "main.c", f"{name}.c", "-lm"], check=True)
    assert subprocess.run(["./main"], capture_output=True, check=True).stdout == b"".join(
        label.encode() + b"\0" for label in labels
    )
    cpp = shutil.which("c++")
    if cpp is not None:  # the header is for C++, too
        (here / "main.cpp").write_text(f'#include "{name}.h"\nint main() {{ return 0; }}\n')
        subprocess.run([cpp, "-Wall", "-Wextra", "-Werror", "-c", "main.cpp"], check=True)


@needs_compiler
def test_the_function_of_the_page_compiles_and_predicts(here: Path) -> None:
    (code,) = re.findall(r"^```c\n(.*?)^```$", (ROOT / "docs/export.md").read_text(), re.MULTILINE | re.DOTALL)
    assert export(classifier(here, name="mnist-kronecker"), "--to", "c") == 0
    (here / "page.c").write_text(f'{code}\n#include <stdio.h>\nint main(void) {{ printf("%d", digit()); return 0; }}\n')
    subprocess.run(["cc", *STRICT, "-o", "page", "page.c", "mnist_kronecker.c", "-lm"], check=True)
    label = int(outputs_of(here / "net.onnx", np.zeros((1, 12), np.float32))["probabilities"].argmax())
    assert subprocess.run(["./page"], capture_output=True, check=True).stdout == str(label).encode()


@needs_compiler
@pytest.mark.parametrize("bits", [None, 8, 4])
def test_a_shared_library_is_loaded_as_a_predictor(bits: int | None, here: Path, capsys: Any) -> None:
    path = classifier(here)
    options = [] if bits is None else ["--bits", bits]
    assert export(path, "--to", "c", "--shared", "--out", "small.c", "--json", *options) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["files"] == ["small.c", "small.h", "small.so"]
    assert printed["generator"] == "kronmodel"
    assert printed["microseconds"] > 0
    assert printed["code_bytes"] > 0
    assert 0 < printed["scratch_bytes"] < 400
    # A: 2 * 4 * 3 and 1 * 4 * 3, B: 2 * 2 * 4 and 1 * 2 * 4, inner biases 2 * 4 * 4 and 3 * 2, bias 8; dense 24 + 3.
    numbers = 36 + 24 + 38 + 8 + 27
    tables = 2 * 129 * 2 + 33 * 2  # of gelu, tanh and the softmax, with integers
    if bits is None:
        assert printed["weight_bytes"] == numbers * 4
    else:
        assert printed["weight_bytes"] - tables < numbers * 2
    predictor = native.load("small.so")
    assert (predictor.input_name, predictor.input_shape) == ("input", (12,))
    x: Any = np.random.default_rng(2).normal(0, 1, (50, 12))
    found = predictor(x)["probabilities"]  # converted from float64
    expected = outputs_of(path, x.astype(np.float32))["probabilities"]
    np.testing.assert_allclose(found, expected, atol={None: 1e-6, 8: 0.1, 4: 0.6}[bits])
    assert predictor(np.zeros((0, 12), np.float32))["probabilities"].shape == (0, 3)
    with pytest.raises(ValueError, match=r"x must have the shape \(batch, 12\), got \(3, 11\)"):
        predictor(np.zeros((3, 11), np.float32))


def test_other_libraries_are_refused(here: Path) -> None:
    (here / "text.so").write_text("text")
    with pytest.raises(LoadError, match=r"text\.so is no library of `kronmodel export --to c --shared`"):
        native.load("text.so")


def test_an_arduino_library_is_a_new_folder(here: Path, capsys: Any) -> None:
    path = classifier(here)
    assert export(path, "--to", "arduino", "--bits", 8, "--out", "Digits") == 0
    files = {str(each.relative_to(here / "Digits")) for each in (here / "Digits").rglob("*") if each.is_file()}
    assert files == {
        "library.properties", "src/digits.c", "src/digits.h", "examples/digits_predict/digits_predict.ino",
    }  # fmt: skip
    properties = dict(line.split("=", 1) for line in (here / "Digits/library.properties").read_text().splitlines())
    for key in ("name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures"):
        assert properties[key]
    sketch = (here / "Digits/examples/digits_predict/digits_predict.ino").read_text()
    assert "#include <digits.h>" in sketch
    assert "digits_predict(in, out)" in sketch
    capsys.readouterr()
    before = {each: each.stat().st_mtime_ns for each in here.rglob("*")}
    assert export(path, "--to", "arduino", "--out", "Digits") == 2
    assert "Digits exists; give the path of a new folder, or remove it" in capsys.readouterr().err.replace("\n", " ")
    assert {each: each.stat().st_mtime_ns for each in here.rglob("*")} == before


@needs_compiler
@pytest.mark.parametrize("bits", [None, 4])
def test_a_header_has_the_weights_only(bits: int | None, here: Path, capsys: Any) -> None:
    options = [] if bits is None else ["--bits", bits]
    assert export(classifier(here), "--to", "header", *options) == 0
    text = (here / "net_weights.h").read_text()
    assert "predict(" not in text
    (here / "main.c").write_text('#include "net_weights.h"\nint main(void) { return 0; }\n')
    subprocess.run(["cc", *STRICT, "-Wno-unused-const-variable", "-c", "main.c"], check=True)


def test_refusals_write_nothing(here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = classifier(here)
    graph = helper.make_graph(
        [helper.make_node("Sinh", ["input"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.ones(3, np.float32), "w")],
    )
    onnx.save(helper.make_model(graph), here / "sinh.onnx")
    monkeypatch.setattr("shutil.which", lambda *_: None)
    monkeypatch.setattr("sys.executable", str(here / "python"))
    before = set(here.iterdir())
    for arguments, message in (
        (("sinh.onnx", "--to", "c"), "the Sinh node that gives 'y'"),
        (("sinh.onnx", "--to", "c"), "such graphs need the generator emx-onnx-cgen: pip install 'kronmodel[c]'"),
        (("sinh.onnx", "--to", "arduino"), "the Sinh node that gives 'y'"),
        (
            ("sinh.onnx", "--to", "c", "--bits", "8"),
            "--shared, --card, --bits and --no-libm are for graphs without such nodes",
        ),
        ((path, "--to", "c", "--out", "a-b.c"), "--out a-b.c: expected a name such as a_b.c"),
        ((path, "--to", "c", "--out", "no/a.c"), "its folder is missing"),
        ((path, "--to", "c", "--with", path), "--with is for --to html"),
        ((path, "--to", "header", "--shared"), "--shared is for --to c"),
        ((path, "--to", "js", "--bits", "8"), "--bits is for C code: --to c"),
        ((path, "--to", "c", "--shared"), "--shared needs a C compiler"),
    ):
        assert export(*arguments) == 2
        assert message in " ".join(capsys.readouterr().err.split())
        assert set(here.iterdir()) == before


def test_without_a_compiler_it_says_so(here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = classifier(here)
    monkeypatch.setattr("shutil.which", lambda *_: None)
    assert export(path, "--to", "c", "--bits", 8) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "no time was measured: there is no C compiler on this machine; install gcc or clang, or set CC" in text
    assert "weights" in text


def test_other_graphs_are_written_by_the_other_generator(here: Path, capsys: Any) -> None:
    graph = Graph(np.random.default_rng(0), 12)
    graph.dense(5)
    graph.at = graph.node("Sinh", graph.at)
    graph.dense(3)
    path = graph.save(here / "other.onnx", (12,))
    assert export(path, "--to", "c", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["generator"] == "emx-onnx-cgen"
    assert "Sinh" not in printed
    assert (here / "other.c").stat().st_size > 1000
