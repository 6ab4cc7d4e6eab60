"""Check the licence of every package in constraints.txt against licences.toml."""

import argparse
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.dependencies.pins import ROOT, read_pins

MAX_NAME_CHARACTERS = 60  # a longer field License is the text of the licence


@dataclass(frozen=True)
class Policy:
    """Contents of licences.toml."""

    accepted: frozenset[str]
    spellings: Mapping[str, str]
    read: Mapping[str, str] = field(default_factory=dict)
    exceptions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "Policy":
        content = tomllib.loads(path.read_text())
        return cls(frozenset(content["accepted"]), content["spellings"], content["read"], content["exceptions"])


def declared_licence(name: str, policy: Policy) -> str | None:
    """Return the licence that an installed package declares.

    Returns:
        SPDX expression where the package has one, else the licences of its classifiers or of its field License, joined
        by AND; None if the package is not installed or names no licence.
    """
    try:
        metadata = importlib.metadata.distribution(name).metadata.json
    except importlib.metadata.PackageNotFoundError:
        return None
    if expression := metadata.get("license_expression"):
        return str(expression)
    prefix = "License :: OSI Approved :: "
    classifiers = metadata.get("classifier", [])
    names = [line.removeprefix(prefix) for line in classifiers if line.startswith(prefix)]
    if not names:
        text = str(metadata.get("license", "")).strip()
        names = [text] if text and "\n" not in text and len(text) <= MAX_NAME_CHARACTERS else []
    return " AND ".join(sorted({policy.spellings.get(each, each) for each in names})) or None


def unaccepted(expression: str, policy: Policy) -> list[str]:
    """Return the parts of a licence expression that are not accepted; each part of an OR must be."""
    if expression in policy.accepted:
        return []
    parts = re.split(r"\s+(?:AND|OR|WITH)\s+", expression.replace("(", " ").replace(")", " ").strip())
    return sorted({part.strip() for part in parts} - policy.accepted)


def check(pins: Mapping[str, str], declared: Mapping[str, str | None], policy: Policy) -> list[str]:
    """Compare the licences of all pins with the policy.

    Args:
        pins: Versions by canonical name.
        declared: Licence that each package declares.
        policy: Contents of licences.toml.

    Returns:
        Faults, one text each.
    """
    faults = []
    for name, version in pins.items():
        licence = declared[name] or policy.read.get(name)
        if name in policy.exceptions:
            continue
        if licence is None:
            faults.append(
                f"{name} {version} names no licence that can be read here: read it in the package and add it to [read]"
            )
        elif others := unaccepted(licence, policy):
            faults.append(
                f"{name} {version}: {', '.join(others)} is not accepted: add another spelling of an accepted licence "
                "to [spellings], or the package with a reason to [exceptions], or do without the package"
            )
    for table, names in (("read", policy.read), ("exceptions", policy.exceptions)):
        faults += [
            f"[{table}] names {name}, which constraints.txt does not pin: remove it" for name in names.keys() - pins
        ]
    return faults


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.dependencies.licences")
    parser.add_argument("--list", action="store_true", help="print the licence of every pin")
    options = parser.parse_args()
    path = Path(__file__).with_name("licences.toml")
    policy = Policy.load(path)
    pins = read_pins((ROOT / "constraints.txt").read_text())
    declared = {name: declared_licence(name, policy) for name in pins}
    if options.list:
        for name, version in pins.items():
            text = declared[name] or policy.read.get(name) or f"exception: {policy.exceptions.get(name)}"
            print(f"{name}=={version}  {text}")
    faults = check(pins, declared, policy)
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        print(f"licences: {len(faults)} faults; the tables are in {path.relative_to(ROOT)}", file=sys.stderr)
        return 1
    print(f"licences of {len(pins)} pins: accepted")
    return 0


if __name__ == "__main__":
    sys.exit(main())
