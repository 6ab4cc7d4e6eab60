"""Checks of README and docs against the code: Python blocks run; commands, options, paths, targets and links exist."""

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kronmodel
from app.cli.main import COMMANDS, _parser
from app.main import create_app
from app.settings import Settings, option
from kronmodel.cli.main import parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (*ROOT.glob("*.md"), *sorted((ROOT / "docs").glob("*.md")))
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MAX_README_LINES = 150
SOURCES = ("app", "benchmarks", "deploy", "docs", "kronmodel", "static", "tests", ".ci")
TEXTS = {".css", ".html", ".js", ".json", ".md", ".py", ".toml", ""}


def blocks(language: str) -> list[tuple[str, str]]:
    """Code blocks of a language in all pages, as pairs of page name and code."""
    return [(page, code) for page, text in PAGES.items() for fence, code in FENCE.findall(text) if fence == language]


def prose(page: str) -> str:
    """Text of a page without its code blocks, joined into one line so that line breaks split no phrase."""
    return " ".join(FENCE.sub("", PAGES[page]).split())


def commands() -> Iterator[list[str]]:
    """Command lines of kronmodel and kronserve in shell blocks and inline code, without comments and redirections."""
    lines = [line for _, code in blocks("sh") for line in code.replace("\\\n", " ").splitlines()]
    lines += [code for page in PAGES for code in re.findall(r"`([^`]+)`", prose(page))]
    for line in lines:
        found = re.match(r"(?:torchrun .*-m )?(?P<call>(?:kronmodel|kronserve) \S.*)", line)
        if found:
            words = shlex.split(found["call"], comments=True)
            yield words[: words.index(">")] if ">" in words else words


def parse(words: list[str]) -> None:
    """Parse a command line with the real parser, and validate the service's settings."""
    program, *arguments = words
    try:
        if program == "kronmodel":
            parser().parse_args(arguments)
            return
        if arguments[0] not in {*COMMANDS, "--help"}:
            arguments.insert(0, "serve")
        parsed = _parser().parse_args(arguments)
    except SystemExit as end:
        if end.code != 0:  # --help exits with 0
            pytest.fail(f"{shlex.join(words)} does not parse")
        return
    Settings.read({}, {name: value for name, value in vars(parsed).items() if name in Settings.model_fields and value})


def options_of(each: argparse.ArgumentParser) -> Iterator[str]:
    for action in each._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from options_of(command)


def anchors(page: str) -> set[str]:
    """Ids that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", PAGES[page]), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize(("page", "code"), blocks("python"))
def test_python_runs(page: str, code: str) -> None:
    exec(compile(code, page, "exec"), {})


def test_blocks_that_do_not_run_here_name_the_test_that_runs_them() -> None:
    others = {fence for text in PAGES.values() for fence, _ in FENCE.findall(text)} - {"", "json", "python", "sh"}
    assert others <= {"c", "js", "py"}
    for page, text in PAGES.items():
        fences = re.findall(r"^```(?:c|js|py)$", text, re.MULTILINE)
        reasons = re.findall(
            r"^<!-- (?:c|js|py): .*(tests/[\w/]+\.py) runs it.* -->\n```(?:c|js|py)$", text, re.MULTILINE
        )
        assert len(reasons) == len(fences), page
        assert all((ROOT / test).is_file() for test in reasons), page


@pytest.mark.slow
def test_the_example_that_reads_training_output_runs(tmp_path: Path) -> None:
    (code,) = [code for page, code in blocks("py") if page == "docs/training.md"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=280,
        check=True,
    )
    *epochs, models = done.stdout.splitlines()
    assert {line.split()[0] for line in epochs} == {"kronecker", "dense"}
    assert models.startswith("{'kronecker': {'name': 'digits-kronecker'")


def test_commands_parse() -> None:
    found = list(commands())
    assert {"kronmodel", "kronserve"} == {words[0] for words in found}
    assert len(found) > 40
    for words in found:
        parse(words)


def test_options_exist() -> None:
    known = {*options_of(parser()), *options_of(_parser())}
    commands = [*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "tests").rglob("__main__.py")]
    for path in commands:
        known |= set(re.findall(r'"(--[a-z-]+)"', path.read_text()))
    for page in PAGES:
        for name in re.findall(r"`(--[a-z-]+)", prose(page)):
            assert name in known, f"{page}: {name}"


def test_requests_of_the_readme_are_among_those_of_the_serving_page() -> None:
    """tests/end_to_end/test_twin.py sends the requests of docs/serving.md."""
    (code,) = [code for page, code in blocks("sh") if page == "README.md" and "curl" in code]
    requests = code[code.index("curl") :]
    assert requests in PAGES["docs/serving.md"]


def test_paths_of_the_api_exist() -> None:
    known = {re.sub(r"{\w+}", "{}", path) for path in create_app(Settings()).openapi()["paths"]}
    found = {path for page in PAGES for path in re.findall(r"`(?:[A-Z]+ )?(/(?:api|v2)/[\w/{}-]+)[`?]", prose(page))}
    assert len(found) > 15
    for path in found:
        general = re.sub(r"{\w+}|(?<=/)[A-Z]+", "{}", path)
        assert general in known or any(each.startswith(f"{general}/") for each in known), path


def test_make_targets_exist() -> None:
    files = [path for folder in SOURCES for path in (ROOT / folder).rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.is_file()]
    targets = set()
    for path in files:
        if path.suffix in TEXTS and "__pycache__" not in path.parts:
            text = path.read_text()
            targets |= set(re.findall(r"`make ([a-z][a-z-]*)", text))
            if path.suffix in {".md", ""}:
                targets |= set(re.findall(r"^make ([a-z][a-z-]*)", text, re.MULTILINE))
    assert {"demo", "test", "lint", "bench-paper"} <= targets
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_table_of_settings_is_complete() -> None:
    table = (ROOT / "docs" / "options.md").read_text()
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        assert f"| `{option(name)}` | `KRON_{name.upper()}` | {default} | {field.description} |" in table


@pytest.mark.parametrize("page", PAGES)
def test_linked_files_and_headings_exist(page: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.is_file(), target
        if anchor:
            assert anchor in anchors(str(file.resolve().relative_to(ROOT.resolve()))), target


def test_every_page_is_linked_from_the_readme() -> None:
    for page in PAGES:
        assert page == "README.md" or f"({page})" in README


def test_the_changelog_begins_with_unreleased_and_the_version() -> None:
    headings = re.findall(r"^## (.*)$", PAGES["CHANGELOG.md"], re.MULTILINE)
    assert headings[:2] == ["Unreleased", kronmodel.__version__]


def test_the_version_is_written_once() -> None:
    files = [*(path for folder in ("app", "kronmodel") for path in (ROOT / folder).rglob("*.py"))]
    files += [ROOT / "pyproject.toml", ROOT / "CITATION.cff"]
    found = [path for path in files if f'"{kronmodel.__version__}"' in path.read_text()]
    assert found == [ROOT / "kronmodel" / "__init__.py"]
