"""The results of a conformance run as Markdown: docs/conformance.md."""

import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from tests.conformance.cases import datatype_of, graph_inputs, type_name
from tests.conformance.drive import Outcome
from tests.conformance.package_cases import HERE, descriptions

PACKAGES = ("onnx", "onnxruntime", "tritonclient", "numpy")
SHOWN = 12  # names in a list
CATEGORIES = {
    "node": "operators",
    "simple": "simple",
    "pytorch-converted": "converted from PyTorch",
    "pytorch-operator": "operators of PyTorch",
    "networks": "networks",
    "files": "files in packages",
    "tabular": "scikit-learn, xgboost, lightgbm",
}


def write_report(outcomes: Sequence[Outcome]) -> str:
    """The whole document."""
    sections = [
        "# Conformance",
        (HERE / "about.md").read_text().strip().replace("VERSIONS", _versions()),
        "## Results",
        _summary(outcomes),
        "## Faults",
        _faults(outcomes),
        "## Refused, rightly",
        _refusals(outcomes),
        "## Where only a part can be compared",
        _partly(outcomes),
        "## Files in packages",
        _files([outcome for outcome in outcomes if outcome.case.category.startswith("files")]),
        "## Tabular models",
        _tabular([outcome for outcome in outcomes if outcome.case.category == "tabular"]),
        (HERE / "other_suites.md").read_text().strip(),
    ]
    return "\n\n".join(sections) + "\n"


def _versions() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{packages}, Python {platform.python_version()}, {platform.system()} on {platform.machine()}"


def _summary(outcomes: Sequence[Outcome]) -> str:
    header = (
        "| source | models | served | refused rightly | refused wrongly | requests alone | wrong "
        "| at once | joined | wrong |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    )
    categories = list(dict.fromkeys(outcome.case.category for outcome in outcomes))
    rows = [_row(_title(name), [each for each in outcomes if each.case.category == name]) for name in categories]
    return "\n".join([header, *rows, _row("**all**", outcomes)])


def _title(category: str) -> str:
    source, _, variant = category.partition(", ")
    return CATEGORIES.get(source, source) + (f", {variant}" if variant else "")


def _row(title: str, outcomes: Sequence[Outcome]) -> str:
    kinds = Counter(kind for outcome in outcomes for kind, _ in outcome.faults)
    numbers = [
        len(outcomes),
        sum(outcome.served for outcome in outcomes),
        sum(not outcome.served and outcome.rightly for outcome in outcomes),
        kinds["refused wrongly"],
        sum(outcome.alone for outcome in outcomes),
        kinds["wrong alone"],
        sum(outcome.at_once for outcome in outcomes),
        sum(outcome.joined for outcome in outcomes),
        kinds["wrong joined"],
    ]
    return f"| {title} | " + " | ".join(f"{number:,}" for number in numbers) + " |"


def _faults(outcomes: Sequence[Outcome]) -> str:
    faults = [(outcome, *outcome.faults[0]) for outcome in outcomes if outcome.faults]
    if not faults:
        return "None."
    lines = [f"- {kind}: `{outcome.case.name}`: {what[:200]}" for outcome, kind, what in faults[:100]]
    return "\n".join([f"{len(faults)} models have faults; the first of each:", "", *lines])


def _refusals(outcomes: Sequence[Outcome]) -> str:
    reasons: dict[str, list[str]] = {}
    for outcome in outcomes:
        if not outcome.served and outcome.rightly:
            reasons.setdefault(outcome.reason, []).append(outcome.case.name)
    lines = ["| reason | models | such as |", "|---|--:|---|"]
    for reason, names in sorted(reasons.items(), key=lambda each: -len(each[1])):
        lines.append(f"| {reason} | {len(names)} | {_names(names[:1])} |")
    return "\n".join(lines)


def _partly(outcomes: Sequence[Outcome]) -> str:
    random = [outcome.case.name for outcome in outcomes if outcome.is_random]
    different = [outcome.case.name for outcome in outcomes if outcome.expected is False]
    checked = sum(outcome.expected is not None for outcome in outcomes)
    return "\n".join(
        [
            f"- {len(random)} models draw random numbers: datatypes and shapes are compared: {_names(random)}.",
            f"- {sum(each.without_json for each in outcomes):,} requests or answers have values that are not finite, "
            "which JSON does not have: an answer of 400 is expected, and the values are compared as binary data.",
            f"- {sum(each.refused for each in outcomes):,} requests do not suit their model: onnxruntime refuses them, "
            "and so does the service, with a message; no other request is affected.",
            f"- {checked:,} models come with expected outputs. onnxruntime alone, and so the service, gives others for "
            f"{len(different)}: {_names(different)}.",
        ]
    )


def _files(outcomes: Sequence[Outcome]) -> str:
    described = {
        f"{each['package']}.{Path(each['path']).stem}.{number}": each for number, each in enumerate(descriptions())
    }
    pins = dict(
        line.split()[0].split("==") for line in (HERE / "packages.txt").read_text().splitlines() if "==" in line
    )
    lines = ["| package | file | MB | what | inputs | outputs | joined | result |", "|---|---|--:|---|---|---|---|---|"]
    for outcome in outcomes:
        each = described[outcome.case.name.removesuffix(".int8")]
        what = each["what"] + (", quantised dynamically" if outcome.case.name.endswith(".int8") else "")
        assert isinstance(outcome.case.model, Path)
        size = outcome.case.model.stat().st_size / 1e6
        columns = [
            f"{each['package']} {pins[each['package']]}", f"`{Path(each['path']).name}`", f"{size:.1f}", what,
            *_interface(outcome), "yes" if outcome.joined else "no", _result(outcome),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def _tabular(outcomes: Sequence[Outcome]) -> str:
    lines = ["| model | inputs | outputs | joined | as its library predicts | result |", "|---|---|---|---|---|---|"]
    for outcome in outcomes:
        columns = [
            outcome.case.name, *_interface(outcome), "yes" if outcome.joined else "no",
            {True: "yes", False: "no", None: "not compared"}[outcome.expected], _result(outcome),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def _interface(outcome: Outcome) -> tuple[str, str]:
    """Datatypes and shapes of the inputs and of the outputs."""
    graph = outcome.case.proto(weights=False).graph
    return _tensors(graph_inputs(graph)), _tensors(graph.output)


def _tensors(values: Iterable) -> str:  # type: ignore[type-arg]  # protobuf's containers have no common type
    texts = []
    for value in values:
        sizes = [str(axis.dim_value) if axis.dim_value > 0 else "?" for axis in value.type.tensor_type.shape.dim]
        datatype = datatype_of(value)
        texts.append(f"{datatype} [{', '.join(sizes)}]" if datatype else type_name(value))
    counts = Counter(texts)
    return ", ".join(f"{count} × {text}" if count > 1 else text for text, count in counts.items())


def _result(outcome: Outcome) -> str:
    if outcome.faults:
        return outcome.faults[0][0]
    return "right" if outcome.served else f"refused: {outcome.reason}"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"`{name}`" for name in names[:SHOWN]) + more if names else "none"
