"""Pins and lower bounds."""

import tomllib

import pytest
from packaging.requirements import Requirement

from tests.dependencies.pins import EXTRAS, ROOT, TOOLS, canonical, lowest_python, read_pins, renew

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    Requirement(line)
    for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for line in lines
]  # fmt: skip


def test_pins_are_read_by_canonical_name() -> None:
    assert read_pins("# a comment\nMarkupSafe==3.0.4\nzope.event==6.2  # via gevent\n\n") == {
        "markupsafe": "3.0.4",
        "zope-event": "6.2",
    }
    with pytest.raises(ValueError, match=r"name==1\.2\.3, got 'numpy>=2'"):
        read_pins("numpy>=2")


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_every_requirement_has_a_lower_bound_and_a_pin_that_meets_it(requirement: Requirement) -> None:
    assert any(each.operator in {">=", "=="} for each in requirement.specifier)
    pins = read_pins((ROOT / "constraints.txt").read_text())
    assert requirement.specifier.contains(pins[canonical(requirement.name)], prereleases=True)


def test_the_extras_that_are_resolved_are_all_but_gpu() -> None:
    assert {*EXTRAS, "gpu"} == set(PROJECT["optional-dependencies"])


def test_classifiers_begin_with_the_lowest_python() -> None:
    prefix = "Programming Language :: Python :: 3."
    minors = [int(line.removeprefix(prefix)) for line in PROJECT["classifiers"] if line.startswith(prefix)]
    assert f"3.{minors[0]}" == lowest_python(PROJECT["requires-python"])
    assert minors == list(range(minors[0], minors[-1] + 1))


def test_a_package_has_one_version_in_all_files_of_pins() -> None:
    files = {name: read_pins((ROOT / name).read_text()) for name in ("constraints.txt", *TOOLS)}
    versions: dict[str, dict[str, str]] = {}
    for name, pins in files.items():
        for package, version in pins.items():
            versions.setdefault(package, {})[name] = version
    assert {package: found for package, found in versions.items() if len(set(found.values())) > 1} == {}


def test_every_file_of_requirements_is_checked() -> None:
    files = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("requirements*.txt")
        if not {".venv", "build"} & set(path.parts)
    }
    assert files <= set(TOOLS)


def test_renewed_pins_keep_comments_and_other_packages() -> None:
    text = "# Tools.\nPyYAML==6.0.1\ntypes-yaml==6.0.1\nzope.event==5.0\n"
    assert renew(text, {"pyyaml": "6.0.4", "zope-event": "6.2"}) == (
        "# Tools.\nPyYAML==6.0.4\ntypes-yaml==6.0.1\nzope.event==6.2\n"
    )
