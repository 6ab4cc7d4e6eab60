"""Export for the browser: bundling of modules, embedded data, and refusals of the command."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kronmodel.cli import main as cli
from kronmodel.errors import ExportError
from kronmodel.export.web.bundle import bundle, page_folder
from kronmodel.export.web.model import OPERATORS, WebModel, data_module
from tests.app.graphs import CARD, classifier, weights


def test_modules_are_joined_in_the_order_of_their_imports(tmp_path: Path) -> None:
    (tmp_path / "low").mkdir()
    (tmp_path / "low" / "a-b.js").write_text(
        '/** A comment with import("./gone.js"). */\nexport const URL = "http://x/"; // why\nexport class A {}\n'
    )
    (tmp_path / "c.js").write_text(
        'import { URL as address } from "./low/a-b.js";\nimport * as all from "./low/a-b.js";\n'
        "/** Adds. @param {number} x */\nexport async function f(x) {\n  return [address, all, x];\n}\n"
    )
    (tmp_path / "main.js").write_text(
        '/** Says. */\nimport {\n  f,\n} from "./c.js";\n\n'
        '/** Kept. */\nexport const later = () => import("./c.js");\nf(1);\n'
    )
    assert bundle(tmp_path, "main.js", {}) == (
        "const $low_a_b = (() => { // low/a-b.js\n"
        'const URL = "http://x/";\nclass A {}\nreturn { URL, A };\n})();\n'
        "const $c = (() => { // c.js\nconst { URL: address } = $low_a_b;\nconst all = $low_a_b;\n"
        "async function f(x) {\nreturn [address, all, x];\n}\nreturn { f };\n})();\n"
        "/** Says. */\nconst {\n  f,\n} = $c;\n\n/** Kept. */\n"
        "export const later = () => Promise.resolve($c);\nf(1);\n"
    )
    replaced = bundle(tmp_path, "main.js", {"other.js": "export const f = () => 2;\n"}, {"c.js": "other.js"})
    assert replaced.startswith("const $other = (() => { // other.js\nconst f = () => 2;\nreturn { f };\n})();\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('import a from "./b.js";', "main.js can't be bundled: 'import a from"),
        ('export * from "./b.js";', "main.js can't be bundled: 'export"),
        ("export default 1;", "main.js can't be bundled: 'export default 1;'"),
        ('import { a } from "./gone.js";\n', "the page's file js/gone.js can't be read: No such file"),
    ],
)
def test_other_modules_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "main.js").write_text(text)
    with pytest.raises(ExportError, match=re.escape(message)):
        bundle(tmp_path, "main.js", {})


def test_the_operators_are_those_of_the_page() -> None:
    text = (page_folder() / "js" / "onnx" / "operators.js").read_text()
    table = text[text.index("export const OPERATORS") :]
    assert set(re.findall(r"^  (\w+): ", table, re.MULTILINE)) == OPERATORS


def test_samples_are_embedded_without_loss(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "3" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(classifier(weights([6, 3]), card=CARD).SerializeToString())
    for inputs, divisor in (
        (np.arange(24, dtype=np.float32).reshape(4, 6) / np.float32(255), 255),
        (np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6), 0),
    ):
        np.savez(path.with_name("samples.npz"), inputs=inputs, labels=np.array([0, 2, 1, 0]))
        model = WebModel.read(path, 3)
        assert (model.name, model.version) == ("deep", "3")
        (entry,) = json.loads(data_module([model]).removeprefix("export const MODELS = ").removesuffix(";\n"))
        data = base64.b64decode(entry["samples"]["inputs"])
        found = np.frombuffer(data, np.uint8) / np.float32(255) if divisor else np.frombuffer(data, np.float32)
        np.testing.assert_array_equal(found.astype(np.float32).reshape(3, 6), inputs[:3])
        assert entry["samples"] == {"inputs": entry["samples"]["inputs"], "divisor": divisor, "labels": [0, 2, 1]}
        assert base64.b64decode(entry["file"]) == path.read_bytes()


def test_a_name_cannot_end_the_script() -> None:
    model = WebModel("</script><!--", "1", b"", None, None, None)
    text = data_module([model])
    assert "<" not in text
    assert json.loads(text[text.index("[") : -2])[0]["name"] == "</script><!--"


def save(path: Path, *nodes: str, datatype: int = TensorProto.FLOAT, batch: str | int = "batch") -> Path:
    graph = helper.make_graph(
        [helper.make_node(node, ["x"], ["y"]) for node in nodes],
        "graph",
        [helper.make_tensor_value_info("x", datatype, [batch, 3])],
        [helper.make_tensor_value_info("y", datatype, None)],
        [numpy_helper.from_array(np.ones(3, np.float32), "w")],
    )
    onnx.save(helper.make_model(graph), path)
    return path


def test_refusals_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    good = save(tmp_path / "good.onnx", "Relu")
    text = tmp_path / "text.onnx"
    text.write_text("text")
    cases: list[tuple[list[str], str]] = [
        ([str(tmp_path / "none.onnx"), "--to", "js"], "none.onnx can't be read: No such file or directory"),
        ([str(text), "--to", "js"], "text.onnx is not an ONNX file"),
        (
            [str(save(tmp_path / "sinh.onnx", "Relu", "Sinh")), "--to", "html"],
            "got Sinh, expected only the operators Ad",
        ),
        (
            [str(save(tmp_path / "f64.onnx", "Relu", datatype=TensorProto.DOUBLE)), "--to", "js"],
            "got an input of DOUBLE",
        ),
        ([str(save(tmp_path / "eight.onnx", "Relu", batch=8)), "--to", "js"], "got an input of FLOAT [8, 3], expected"),
        ([str(good), "--to", "js", "--with", str(good)], "--with is for --to html"),
        ([str(good), "--to", "html", "--with", str(good)], "models must have different names, got good, good"),
        ([str(good), "--to", "html", "--samples", "-1"], "--samples must be between 0 and 1000, got -1"),
        ([str(good), "--to", "html", "--out", "no/page.html"], "--out no/page.html can't be written"),
    ]
    for arguments, message in cases:
        assert cli.main(["export", *arguments]) == 2, arguments
        error = capsys.readouterr().err
        assert message in error, arguments
        assert error.count("\n") == 1
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".onnx"] * 5


def test_the_files_are_named_after_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.onnx"
    path.write_bytes(classifier(weights([6, 3]), card=CARD | {"name": "../a b"}).SerializeToString())
    assert cli.main(["export", str(path), "--to", "js", "--json"]) == 0
    content = (tmp_path / ".._a_b.mjs").read_bytes()
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"path": ".._a_b.mjs", "format": "js", "bytes": len(content), "models": ["../a b"]}
    assert cli.main(["export", str(path), "--to", "html", "--out", "page.html"]) == 0
    assert capsys.readouterr().out == f"wrote page.html: {(tmp_path / 'page.html').stat().st_size:,} bytes\n"
