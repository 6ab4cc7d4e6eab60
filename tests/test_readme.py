"""README and docs are true: Python runs, commands and linked files exist, options are those of the service."""

import re
import shlex
from pathlib import Path

import pytest

from app.settings import Settings, option
from kronmodel.cli import main as kronmodel

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"`make ([a-z-]+)", README)) | set(re.findall(r"^make ([a-z-]+)", README, re.MULTILINE))
    assert {"demo", "test", "lint", "bench-paper"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_options_of_kronmodel_exist() -> None:
    commands = re.findall(r"^(kronmodel [^#\n]+)", "\n".join(blocks("sh")), re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        kronmodel.parser().parse_args(shlex.split(command)[1:])


def test_the_table_of_settings_is_complete() -> None:
    table = (ROOT / "docs" / "options.md").read_text()
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        assert f"| `{option(name)}` | `KRON_{name.upper()}` | {default} | {field.description} |" in table


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_linked_files_exist(page: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text()):
        file = (ROOT / page).parent / target.partition("#")[0]
        assert target.startswith("https://") or file.is_file(), target


def test_the_changelog_has_its_unreleased_part_on_top() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
