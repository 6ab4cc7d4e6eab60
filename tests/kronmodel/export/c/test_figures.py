"""Sizes of C code in the model card: computed without a compiler, and measured by ``kronmodel export --card``."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from kronmodel.cli import main as cli
from kronmodel.export.c.figures import c_figures
from kronmodel.export.c.formats import source_files, write_source
from kronmodel.export.c.model import CModel
from kronmodel.export.c.source import Source
from kronmodel.export.card import read_card
from kronmodel.native.compiled import CompiledPredictor
from tests.kronmodel.export.c.graphs import random_graph
from tests.kronmodel.export.c.test_command import classifier, needs_compiler
from tests.kronmodel.export.c.test_stored import save

BYTES = {"float": 4, "int8_t": 1, "uint8_t": 1, "int16_t": 2, "uint16_t": 2, "int32_t": 4}


def sizes_in_c(folder: Path, source: Source) -> tuple[int, int]:
    """Sum the arrays in the text of the code, and ask a compiler for the size of the scratch memory."""
    for name, text in source_files(source).items():
        (folder / name).write_text(text)
    arrays = re.findall(r"^static const (\w+) (?!\w+_table\b)\w+\[(\d+)\]", source.code, re.MULTILINE)
    (folder / "size.c").write_text(
        '#include <stdio.h>\n#include "net.h"\nint main(void) { printf("%zu", NET_SCRATCH_BYTES); return 0; }\n'
    )
    subprocess.run(["cc", "-o", "size", "size.c"], cwd=folder, check=True)
    done = subprocess.run([str(folder / "size")], capture_output=True, check=True)
    return sum(int(number) * BYTES[kind] for kind, number in arrays if kind in BYTES), int(done.stdout)


@needs_compiler
@pytest.mark.parametrize("seed", [0, 3, None])
def test_the_sizes_are_those_of_the_code(seed: int | None, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    rng = np.random.default_rng(5)
    if seed is None:
        save(path, rng, ranges=False)
        shape: tuple[int, ...] = (24,)
    else:
        graph, shape = random_graph(seed)
        graph.save(path, shape)
    samples = rng.normal(0, 1, (9, *shape)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", inputs=samples)
    weights, scratch = sizes_in_c(tmp_path, write_source(CModel.read(path), "net", None))
    bits = 8 if seed is None else 32
    expected = {"bits": bits, "weight_bytes": weights, "scratch_bytes": scratch}
    assert c_figures(onnx.load(path), samples) == {"c": expected}


def test_other_networks_have_no_sizes() -> None:
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Sinh", ["x"], ["y"])], "graph", values[:1], values[1:])
    assert c_figures(helper.make_model(graph), np.zeros((1, 3), np.float32)) == {}


def card_of(path: Path) -> Any:
    return read_card(onnx.load(path))


@needs_compiler
@pytest.mark.parametrize("bits", [None, 8])
def test_measured_sizes_get_into_the_card(
    bits: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    path = classifier(tmp_path, name="small", labels=["a", "b", "c"])
    path.chmod(0o640)
    (tmp_path / "link.onnx").symlink_to(path)
    before = onnx.load(path)
    options = [] if bits is None else ["--bits", str(bits)]
    assert cli.main(["export", "link.onnx", "--to", "c", "--card", "--shared", "--json", *options]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["files"] == ["small.c", "small.h", "small.so"]
    after = onnx.load(path)
    assert after.graph == before.graph
    names = ("weight_bytes", "scratch_bytes", "code_bytes", "compiler")
    sizes = {"bits": bits or 32, **{name: printed[name] for name in names}}
    assert card_of(path) == {"name": "small", "labels": ["a", "b", "c"], "c": sizes}
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert (tmp_path / "link.onnx").is_symlink()
    # The library is of the new file.
    assert CompiledPredictor(Path("small.so")).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    # Once more, with other bits: one entry, the last.
    assert cli.main(["export", str(path), "--to", "c", "--card", "--bits", "4"]) == 0
    assert card_of(path)["c"]["bits"] == 4
    assert len(onnx.load(path).metadata_props) == 1


def test_cards_that_cannot_take_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("shutil.which", lambda *_: None)  # no compiler: quicker
    path = classifier(tmp_path)
    other = tmp_path / "other" / "net.onnx"
    other.parent.mkdir()
    shutil.move(classifier(other.parent, name="x"), other)
    other.with_name("net.onnx.sha256").write_text(hashlib.sha256(other.read_bytes()).hexdigest())
    before = {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()}
    for arguments, message in (
        ((path, "--to", "c"), f"{path} has no model card: leave out --card"),
        ((other, "--to", "c"), f"whose checksum is in {other}.sha256: leave out --card"),
        ((other, "--to", "header"), "--card is for --to c"),
        ((other, "--to", "arduino"), "--card is for --to c"),
        ((other, "--to", "js"), "--card is for C code: --to c"),
    ):
        assert cli.main(["export", *map(str, arguments), "--card"]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
        assert {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()} == before
    # Without a compiler, the size of the code is unknown, and absent.
    assert cli.main(["export", str(other), "--to", "c", "--card"]) == 2
    other.with_name("net.onnx.sha256").unlink()
    assert cli.main(["export", str(other), "--to", "c", "--card"]) == 0
    assert set(card_of(other)["c"]) == {"bits", "weight_bytes", "scratch_bytes"}
