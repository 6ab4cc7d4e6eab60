"""Serve models of many sources by the real service, and compare its answers with those of onnxruntime alone."""

import argparse
import itertools
import pickle
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from tests.conformance import backend_cases
from tests.conformance.cases import Case, with_free_rows
from tests.conformance.drive import Outcome, drive
from tests.conformance.oracle import Oracle
from tests.conformance.package_cases import FOLDER, package_cases
from tests.conformance.report import write_report
from tests.conformance.service import Service, ServiceError
from tests.conformance.tabular_cases import tabular_cases

REPORT = Path("docs/conformance.md")
LAST_RUN = FOLDER / "outcomes.pkl"  # for --again
GROUP_CASES = 500  # in one service, which has at most 1,000 models
GROUP_BYTES = 400 * 2**20


def main() -> int:
    """Run the selected cases.

    Returns:
        Exit code: 1 if the service refused a model or a request wrongly or gave a wrong value.
    """
    parser = argparse.ArgumentParser(prog="make conformance", description=__doc__)
    parser.add_argument("--only", action="append", help="category of the cases: node, files, ... (can be repeated)")
    parser.add_argument("--limit", type=int, help="most models of each source")
    parser.add_argument("--name", default="", help="only cases whose name contains this text")
    parser.add_argument("--tabular", type=Path, help="Python that has the requirements of the tabular models")
    parser.add_argument("--again", action="store_true", help="only cases that had faults in the last run of all")
    parser.add_argument("--report", type=Path, help=f"file to write the results to, such as {REPORT}")
    parser.add_argument("rest", nargs="*", help="further options of kronserve, after --: -- --http=standard")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the service, too
    kept: list[Outcome] = pickle.loads(LAST_RUN.read_bytes()) if options.again else []
    faulty = {outcome.case.name for outcome in kept if outcome.faults}
    outcomes: list[Outcome] = []
    started = time.monotonic()
    try:
        with Oracle() as oracle:
            cases = (case for case in select(options) if not options.again or case.name in faulty)
            for group in groups(cases):
                ended = run_group(group, oracle, options.rest)
                print_faults(ended)
                outcomes += ended
                wrong = sum(bool(outcome.faults) for outcome in outcomes)
                seconds = time.monotonic() - started
                print(f"{len(outcomes)} models, {wrong} with faults, {seconds:.0f} s", file=sys.stderr, flush=True)
    except ServiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    if options.again:
        ended_again = {outcome.case.name: outcome for outcome in outcomes}
        outcomes = [ended_again.get(outcome.case.name, outcome) for outcome in kept]
    elif not (options.only or options.limit or options.name or options.rest):
        LAST_RUN.write_bytes(pickle.dumps(outcomes))
    if options.report:
        options.report.write_text(write_report(outcomes))
    kinds = Counter(kind for outcome in outcomes for kind, _ in outcome.faults)
    print(f"{len(outcomes)} models: " + (", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "0 faults"))
    return int(bool(kinds) or not outcomes)


def print_faults(outcomes: Iterable[Outcome]) -> None:
    """Print the first fault of each kind of each model."""
    for outcome in outcomes:
        for kind, what in dict(reversed(outcome.faults)).items():
            print(f"{kind}: {outcome.case.category}: {outcome.case.name}: {what}", flush=True)


def select(options: argparse.Namespace) -> Iterator[Case]:
    """The cases that the options select."""
    only = options.only
    sources: dict[str, Callable[[], Iterator[Case]]] = {
        "node": backend_cases.node_cases,
        **{kind: partial(backend_cases.file_cases, kind) for kind in backend_cases.FILE_KINDS},
        "networks": backend_cases.light_cases,
        "files": package_cases,
    }
    if options.tabular:
        sources["tabular"] = partial(tabular_cases, options.tabular)
    for category, cases in sources.items():
        if not only or category in only:
            for case in itertools.islice(cases(), options.limit):
                variants = () if category in {"files", "tabular"} else with_free_rows(case)
                yield from (each for each in (case, *variants) if options.name in each.name)


def groups(cases: Iterable[Case]) -> Iterator[list[Case]]:
    """Split cases into groups that fit in one service."""
    group: list[Case] = []
    size = 0
    for case in cases:
        more = len(case.model) if isinstance(case.model, bytes) else case.model.stat().st_size
        if group and (len(group) == GROUP_CASES or size + more > GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(case)
        size += more
    if group:
        yield group


def run_group(group: Sequence[Case], oracle: Oracle, options: Sequence[str]) -> list[Outcome]:
    """Serve a group of cases with these options, and drive each."""
    with Service(group, options) as service:
        verdicts = [oracle.ask(case) for case in group]  # while the service reads the models
        service.wait_until_ready()
        _, index = service.post("/v2/repository/index", b"{}")
        states = {entry["name"]: entry for entry in index}
        outcomes = []
        for case, verdict in zip(group, verdicts, strict=True):
            try:
                outcomes.append(drive(case, verdict, service, states))
            except ServiceError as error:
                if not service.is_alive():
                    raise
                outcomes.append(Outcome(case, faults=[("no answer", str(error))]))
        return outcomes


if __name__ == "__main__":
    sys.exit(main())
