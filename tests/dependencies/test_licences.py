"""The check of licences, on the installed packages and on made-up declarations."""

import importlib.metadata
from pathlib import Path

import pytest

from tests.dependencies.licences import Policy, check, declared_licence, unaccepted
from tests.dependencies.pins import ROOT, read_pins

POLICY = Policy(
    frozenset({"MIT", "Apache-2.0", "LLVM-exception"}), {"MIT License": "MIT"}, {"quiet": "MIT"}, {"odd": "why"}
)


def test_the_policy_accepts_every_pin() -> None:
    policy = Policy.load(ROOT / "tests/dependencies/licences.toml")
    pins = read_pins((ROOT / "constraints.txt").read_text())
    assert check(pins, {name: declared_licence(name, policy) for name in pins}, policy) == []


@pytest.mark.parametrize(
    ("expression", "others"),
    [
        ("MIT", []),
        ("MIT AND (Apache-2.0 OR MIT)", []),
        ("Apache-2.0 WITH LLVM-exception", []),
        ("MIT OR GPL-3.0-only", ["GPL-3.0-only"]),
        ("(AGPL-3.0-or-later AND Proprietary) OR MIT", ["AGPL-3.0-or-later", "Proprietary"]),
        ("MIT\nAND GPL-2.0-only", ["GPL-2.0-only"]),
    ],
)
def test_every_part_of_an_expression_must_be_accepted(expression: str, others: list[str]) -> None:
    assert unaccepted(expression, POLICY) == others


def test_faults_name_the_package_and_the_cure() -> None:
    pins = {"good": "1", "quiet": "2", "odd": "3", "bad": "4", "silent": "5"}
    declared = {"good": "MIT", "quiet": None, "odd": "Proprietary", "bad": "GPL-3.0-only", "silent": None}
    faults = check(pins, declared, POLICY)
    assert [fault.split()[0] for fault in faults] == ["bad", "silent"]
    assert "GPL-3.0-only is not accepted" in faults[0]
    assert "add it to [read]" in faults[1]
    assert check({"good": "1"}, declared, POLICY) == [
        "[read] names quiet, which constraints.txt does not pin: remove it",
        "[exceptions] names odd, which constraints.txt does not pin: remove it",
    ]


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("License-Expression: MIT\nClassifier: License :: OSI Approved :: BSD License\n", "MIT"),
        ("License: MIT License\n", "MIT"),
        ("License: GPL\nClassifier: License :: OSI Approved :: MIT License\n", "MIT"),
        ("License: Copyright (c) the authors\n        Permission is hereby granted\n", None),
        (
            "Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)\n",
            "GNU General Public License v3 (GPLv3)",
        ),
        ("", None),
    ],
)
def test_the_licence_that_a_package_declares(
    metadata: str, licence: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "madeup-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: madeup\nVersion: 1.0\n{metadata}")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.metadata.version("madeup") == "1.0"
    assert declared_licence("madeup", POLICY) == licence


def test_a_package_that_is_not_installed_declares_nothing() -> None:
    assert declared_licence("a-package-that-is-not-installed", POLICY) is None
