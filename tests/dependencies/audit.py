"""Check the pins against the vulnerability database OSV with pip-audit."""

import argparse
import datetime
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.dependencies.pins import ROOT, TOOLS, canonical, read_pins

OSV = "https://api.osv.dev/v1/query"
PINNED = ("constraints.txt", *TOOLS)
# The last line of pip-audit's error output where the database gave no answer: no name, no route, no certificate, a 5xx.
UNREACHABLE = re.compile(
    r"requests\.exceptions\.\w*(?:Connection|Timeout|Proxy|SSL|HTTP)\w*:|ServiceError|Could not connect to OSV"
)
NOT_CHECKED = "the pins are not checked for known vulnerabilities: the database {} gives no answer"
TIMEOUT_SECONDS = 600


@dataclass(frozen=True)
class Acceptance:
    """Vulnerability that is accepted until a date."""

    id: str
    package: str
    reason: str
    until: datetime.date

    @classmethod
    def read(cls, entry: dict[str, Any]) -> "Acceptance":
        """Read an entry of vulnerabilities.toml.

        Raises:
            ValueError: If a field is missing, empty, unknown or of another type.
        """
        types = {"id": str, "package": str, "reason": str, "until": datetime.date}
        if entry.keys() != types.keys() or not all(isinstance(entry[key], kind) for key, kind in types.items()):
            raise ValueError(f"an entry needs id, package and reason as texts and until as a date, got {entry}")
        if not all(str(value).strip() for value in entry.values()):
            raise ValueError(f"a field of the entry is empty: {entry}")
        return cls(entry["id"], canonical(entry["package"]), entry["reason"], entry["until"])


def read_acceptances(path: Path) -> list[Acceptance]:
    """Read vulnerabilities.toml."""
    return [Acceptance.read(entry) for entry in tomllib.loads(path.read_text()).get("accepted", [])]


def query(requirements: Iterable[Path], osv_url: str) -> dict[str, Any] | None:
    """Query the database for all pins with pip-audit.

    Args:
        requirements: Files of pins.
        osv_url: Address of OSV's query.

    Returns:
        pip-audit's report; None if the database gave no answer.
    """
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", "osv", "--osv-url", osv_url, "--no-deps"]
    command += ["--disable-pip", "--format", "json", "--desc", "on", "--progress-spinner", "off"]
    for path in requirements:
        command += ["--requirement", str(path)]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    if result.returncode in {0, 1} and result.stdout.startswith("{"):
        report: dict[str, Any] = json.loads(result.stdout)
        return report
    if UNREACHABLE.search("\n".join(result.stderr.strip().splitlines()[-2:])):
        return None
    sys.exit(f"pip-audit failed with exit code {result.returncode}:\n{result.stderr}{result.stdout}")


def judge(
    report: dict[str, Any], acceptances: Sequence[Acceptance], today: datetime.date
) -> tuple[list[str], list[str]]:
    """Compare pip-audit's report with the accepted vulnerabilities.

    Args:
        report: pip-audit's report in JSON.
        acceptances: Entries of vulnerabilities.toml.
        today: Day that the entries' dates are compared with.

    Returns:
        Faults, and notices that are no faults.
    """
    faults, notices = [], []
    used = set()
    for package in report["dependencies"]:
        name = canonical(package["name"])
        if "skip_reason" in package:
            faults.append(f"{name} was not checked: {package['skip_reason']}")
        for vulnerability in package.get("vulns", []):
            ids = {vulnerability["id"], *vulnerability.get("aliases", [])}
            entry = next((each for each in acceptances if each.package == name and each.id in ids), None)
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
            text = f"{name} {package['version']}: {', '.join(sorted(ids))}, fixed by {fixed}"
            if entry is not None:
                used.add(entry)
            if entry is None:
                faults.append(f"{text}: {vulnerability.get('description', '')[:200]}")
            elif entry.until < today:
                faults.append(f"{text}: was accepted until {entry.until}")
            else:
                notices.append(f"{text}: accepted until {entry.until}: {entry.reason}")
    faults += [
        f"{each.id} of {each.package} no longer applies: remove the entry" for each in acceptances if each not in used
    ]
    return faults, notices


def main() -> int:
    """Run the command line.

    Returns:
        0 if no fault was found or the database gave no answer, else 1.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.dependencies.audit")
    parser.add_argument("--osv-url", default=OSV, help="address of OSV's query")
    parser.add_argument(
        "--requirement", action="append", type=Path, help="file of pins; without it all of the repository's"
    )
    parser.add_argument("--accepted", type=Path, default=Path(__file__).with_name("vulnerabilities.toml"))
    options = parser.parse_args()
    requirements = options.requirement or [ROOT / name for name in PINNED]
    acceptances = read_acceptances(options.accepted)
    count = len({pin for path in requirements for pin in read_pins(path.read_text()).items()})
    report = query(requirements, options.osv_url)
    if report is None:
        print(NOT_CHECKED.format(options.osv_url), file=sys.stderr)
        return 0
    faults, notices = judge(report, acceptances, datetime.datetime.now(datetime.UTC).date())
    if len(report["dependencies"]) < count:
        faults.append(f"pip-audit reported {len(report['dependencies'])} of {count} pins")
    print(*notices, *faults, sep="\n", file=sys.stderr)
    if faults:
        print(
            f"vulnerabilities: {len(faults)} faults; raise the pin with `make pins`, or accept the vulnerability for a "
            f"time in {options.accepted.name}",
            file=sys.stderr,
        )
        return 1
    print(f"known vulnerabilities of {count} pins: none{' but the accepted' if notices else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
