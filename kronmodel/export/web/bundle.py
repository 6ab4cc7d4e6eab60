"""Bundling of the page's JavaScript modules into one, and of its style sheets."""

from __future__ import annotations

import bz2
import io
import posixpath
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

from kronmodel.errors import ExportError

__all__ = ["bundle", "compact_script", "compact_styles", "page_folder", "styles"]

_IMPORT = re.compile(r'^import (\* as \w+|\{[^}]*\}) from "([^"]+)";\n', re.MULTILINE)
_DYNAMIC_IMPORT = re.compile(r'\bimport\("([^"]+)"\)')
_EXPORT = re.compile(r"^export (?:async )?(?:function|const|class) (\w+)", re.MULTILINE)
_UNSUPPORTED = re.compile(r"^(?:import\b(?!\()|export\b(?! (?:async )?(?:function|const|class) )).*$", re.MULTILINE)
_COMMENTS = re.compile(r"(?s:/\*\*.*?\*/)[ \t]*|^[ \t]*//.*$|[ \t]+// [^\"'`\n]*$", re.MULTILINE)
_INDENTATION = re.compile(r"\n\s+")  # with empty lines; no string of the page's modules has more than one line


def page_folder() -> Traversable:
    """Find the page's files: in the archive in the package ``app`` of a wheel, or beside the packages in a checkout.

    Raises:
        ExportError: they are missing.
    """
    root = Path(__file__).resolve().parents[3]
    archive = root / "app" / "static.zip.bz2"
    folder: Traversable = root / "static"
    if archive.is_file():
        folder = zipfile.Path(zipfile.ZipFile(io.BytesIO(bz2.decompress(archive.read_bytes()))))
    if not folder.joinpath("js", "standalone", "page.js").is_file():
        raise ExportError(
            f"the page's files are missing: expected app/static.zip.bz2 or static in {root}; install kronmodel again"
        )
    return folder


def bundle(folder: Traversable, entry: str, texts: Mapping[str, str], replaced: Mapping[str, str] | None = None) -> str:
    """Join an ES module and all modules that it imports into one, whose exports are those of the entry.

    Each other module becomes a function that returns its exports. Comments are removed, but not those of the entry,
    which describe its exports.

    Args:
        folder: the folder of all modules.
        entry: path of the entry in the folder.
        texts: texts of modules by their paths, in the place of the files'.
        replaced: for the path of a module, that of the module to take in its place.

    Raises:
        ExportError: a module is missing, or has an import or an export in an unsupported form.
    """
    joined: dict[str, str] = {}
    _add(_Source(folder, texts, replaced or {}), entry, joined, is_entry=True)
    return "".join(joined.values())


@dataclass(frozen=True)
class _Source:
    """Modules by their paths: files, some of them replaced."""

    folder: Traversable
    texts: Mapping[str, str]
    replaced: Mapping[str, str]

    def resolve(self, name: str, written: str) -> str:
        """Find the path of the module that another one imports."""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(name), written))
        return self.replaced.get(path, path)

    def read(self, name: str) -> str:
        """Read a module."""
        if name in self.texts:
            return self.texts[name]
        try:
            return self.folder.joinpath(*name.split("/")).read_text(encoding="utf-8")
        except OSError as error:
            raise ExportError(f"the page's file js/{name} can't be read: {error.strerror}") from error


def _add(source: _Source, name: str, joined: dict[str, str], *, is_entry: bool = False) -> None:
    """Add a module after the modules that it imports."""
    text = source.read(name)
    code = text if is_entry else compact_script(text)
    targets = {}
    for written in [match[2] for match in _IMPORT.finditer(code)] + _DYNAMIC_IMPORT.findall(_COMMENTS.sub("", code)):
        target = targets[written] = source.resolve(name, written)
        if target not in joined:
            _add(source, target, joined)
    code = _IMPORT.sub(lambda match: _constant(match[1], _variable(targets[match[2]])), code)
    code = _DYNAMIC_IMPORT.sub(lambda match: f"Promise.resolve({_variable(targets[match[1]])})", code)
    if (line := _UNSUPPORTED.search(code)) is not None:
        raise ExportError(f"{name} can't be bundled: {line[0][:80]!r} is not supported")
    if is_entry:
        joined[name] = code
        return
    exports = ", ".join(_EXPORT.findall(code))
    body = re.sub(r"^export ", "", code, flags=re.MULTILINE).strip()
    joined[name] = f"const {_variable(name)} = (() => {{ // {name}\n{body}\nreturn {{ {exports} }};\n}})();\n"


def _variable(name: str) -> str:
    return "$" + re.sub(r"\W", "_", name.removesuffix(".js"))


def _constant(names: str, variable: str) -> str:
    """Translate the names of an import to the declaration of a constant."""
    if names.startswith("*"):
        return f"const {names.removeprefix('* as ')} = {variable};\n"
    return f"const {re.sub(r' as ', ': ', names)} = {variable};\n"


def styles(folder: Traversable, names: Sequence[str]) -> str:
    """Join style sheets without their comments.

    Args:
        folder: the folder of the style sheets.
        names: their paths without the suffix, earlier ones first.

    Raises:
        ExportError: one is missing.
    """
    try:
        texts = [folder.joinpath(*f"{name}.css".split("/")).read_text(encoding="utf-8") for name in names]
    except OSError as error:
        raise ExportError(f"the page's style sheet can't be read: {error}") from error
    return compact_styles("".join(texts))


def compact_script(text: str) -> str:
    """Remove the comments, the indentation and the empty lines of a JavaScript module of the page."""
    return _INDENTATION.sub("\n", _COMMENTS.sub("", text))


def compact_styles(text: str) -> str:
    """Remove the comments, the indentation and the empty lines of a style sheet of the page."""
    return _INDENTATION.sub("\n", re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)).strip() + "\n"
