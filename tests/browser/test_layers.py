"""The layers of static/js: imports go down, views are independent, and every module is used."""

import os
import re
from pathlib import Path

import pytest

STATIC = Path(__file__).parents[2] / "static"
ENTRY = "main.js"
# Entries of `kronmodel export`, and the modules that it puts in the place of others.
EXPORTED = {f"standalone/{name}.js" for name in ("page", "loader", "module", "client", "model-file", "stylesheet")}
LAYERS = ["onnx", "ui", "api", "model", "charts", "shell", "views/jobs", "views", "standalone", ENTRY]
"""From low to high. A module imports from its own folder and from lower layers; ``views`` are all views but jobs."""
MAX_MODULES = 20
MAX_LINES = 350
STATIC_IMPORT = re.compile(r'^(?:import\b(?:[^;"(]*\bfrom)?|export\b[^;"]*\bfrom)\s*"([^"]+)"', re.MULTILINE)
# Static imports, JSDoc's `@import {...} from "..."`, and import("...") as an expression or a type.
IMPORT = re.compile(rf'{STATIC_IMPORT.pattern}|@import\b[^"]*?"([^"]+)"|\bimport\(\s*"([^"]+)"', re.MULTILINE)
KEBAB_CASE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def read(root: Path) -> dict[str, str]:
    """Return the text of each module by its path below ``root``."""
    return {path.relative_to(root).as_posix(): path.read_text() for path in sorted(root.rglob("*.js"))}


def imports(name: str, text: str, pattern: re.Pattern[str] = IMPORT) -> list[tuple[str, str]]:
    """Return each import of a module: as written, and as the path of the imported module."""
    written = [next(filter(None, match.groups())) for match in pattern.finditer(text)]
    return [(each, os.path.normpath(Path(name).parent / each)) for each in written]


def folder(name: str) -> str:
    """Return the folder of a module, or the module itself at the top."""
    return Path(name).parent.as_posix() if "/" in name else name


def rank(name: str) -> int:
    """Return the position of a module's layer; -1 if it is in none."""
    place = folder(name)
    layer = "views" if re.fullmatch(r"views/(?!jobs$)[^/]+", place) else place
    return LAYERS.index(layer) if layer in LAYERS else -1


def faults(modules: dict[str, str]) -> list[str]:
    """Return what violates the layout, with the module and the import."""
    found = []
    used = {ENTRY, *EXPORTED}
    for name, text in modules.items():
        if rank(name) < 0:
            found.append(f"{name}: no layer has the folder {folder(name)}")
        if not all(KEBAB_CASE.fullmatch(part) for part in name.removesuffix(".js").split("/")):
            found.append(f"{name}: the name is not kebab-case")
        if text.count("\n") > MAX_LINES:
            found.append(f"{name}: {text.count(chr(10))} lines, expected at most {MAX_LINES}")
        for written, target in imports(name, text):
            used.add(target)
            if target not in modules:
                found.append(f"{name}: imports {written}, which does not exist")
            elif rank(target) > rank(name):
                found.append(f"{name}: imports {written} from a higher layer")
            elif rank(target) == rank(name) and folder(target) != folder(name):
                found.append(f"{name}: imports {written} of another view")
    found += [f"{name}: no module imports it" for name in modules if name not in used]
    places = [folder(name) for name in modules]
    return found + [
        f"{place}: {places.count(place)} modules, expected at most {MAX_MODULES}"
        for place in sorted(set(places))
        if places.count(place) > MAX_MODULES
    ]


def test_imports_go_down_and_names_are_kebab_case() -> None:
    modules = read(STATIC / "js")
    assert len(modules) > 40
    assert faults(modules) == []


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("ui/dom.js", 'import { json } from "../api/client.js";', "imports ../api/client.js from a higher layer"),
        ("ui/dom.js", '/** @import { Layer } from "../api/types.js" */', "imports ../api/types.js from a higher layer"),
        ("api/client.js", 'await import("../shell/router.js")', "imports ../shell/router.js from a higher layer"),
        ("api/client.js", '/** @type {import("../shell/types.js").App} */', "imports ../shell/types.js from a higher"),
        (
            "model/task.js",
            'import {\n  a,\n  b,\n} from "../charts/plot.js";',
            "imports ../charts/plot.js from a higher",
        ),
        ("views/jobs/fields.js", 'import "../train/form.js";', "imports ../train/form.js from a higher layer"),
        ("views/try/pad.js", 'import "../train/form.js";', "imports ../train/form.js of another view"),
        ("views/try/pad.js", 'export { h } from "./gone.js";', "imports ./gone.js, which does not exist"),
        ("views/try/oldPad.js", "", "the name is not kebab-case"),
        ("views/try/unused.js", "", "no module imports it"),
        ("helpers/sort.js", "", "no layer has the folder helpers"),
        ("views/try/pads/pad.js", "", "no layer has the folder views/try/pads"),
        ("ui/lines.js", "\n" * 350, "351 lines, expected at most 350"),
    ],
)
def test_each_fault_is_found(name: str, text: str, fault: str) -> None:
    modules = read(STATIC / "js")
    found = faults(modules | {name: modules.get(name, "") + "\n" + text})
    assert any(each.startswith(f"{name}: {fault}") for each in found), found


def test_index_html_preloads_what_the_entry_module_imports() -> None:
    modules = read(STATIC / "js")
    wanted: set[str] = set()
    pending = [ENTRY]
    while pending:
        name = pending.pop()
        targets = {target for _, target in imports(name, modules[name], STATIC_IMPORT)} - wanted
        wanted |= targets
        pending += targets
    page = (STATIC / "index.html").read_text()
    assert set(re.findall(r'rel="modulepreload" href="/static/js/([^"]+)"', page)) == wanted


def test_style_sheets_exist_and_are_loaded() -> None:
    sheets = {path.relative_to(STATIC / "css").as_posix().removesuffix(".css") for path in STATIC.rglob("*.css")}
    text = "\n".join(read(STATIC / "js").values())
    named = set(re.findall(r'"((?:ui|model|charts|shell|views)/[a-z/-]+)"', text))
    linked = set(re.findall(r'href="/static/css/([^"]+)\.css"', (STATIC / "index.html").read_text()))
    assert named | linked == sheets
