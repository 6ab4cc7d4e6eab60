"""A small part of `make conformance`: operators whose rows depend on each other, and some whose rows do not."""

from collections.abc import Iterator

import numpy as np
import pytest

from tests.conformance.backend_cases import file_cases
from tests.conformance.cases import Case, different_requests, with_free_rows
from tests.conformance.drive import Outcome, drive
from tests.conformance.oracle import Answer, Oracle, Verdict
from tests.conformance.report import write_report
from tests.conformance.service import Service

NAMES = (
    "test_PReLU_1d", "test_Softmax", "test_Embedding", "test_GLU_dim", "test_operator_flatten",
    "test_operator_permute2", "test_operator_maxpool", "test_strnorm_model_monday_casesensintive_lower",
    "test_expand_shape_model1", "test_sign_model", "test_shrink", "test_gradient_of_add",
)  # fmt: skip


def chosen() -> Iterator[Case]:
    """Some models of the backend tests, as given and with a free first axis."""
    for kind in ("simple", "pytorch-converted", "pytorch-operator"):
        for case in file_cases(kind):
            if case.name in NAMES:
                yield from (case, *with_free_rows(case))


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    cases = list(chosen())
    with Service(cases) as service, Oracle() as oracle:
        verdicts = [oracle.ask(case) for case in cases]
        service.wait_until_ready()
        states = {entry["name"]: entry for entry in service.post("/v2/repository/index", b"{}")[1]}
        return {case.name: drive(case, verdict, service, states) for case, verdict in zip(cases, verdicts, strict=True)}


def test_nothing_is_wrong(outcomes: dict[str, Outcome]) -> None:
    assert {name: outcome.faults for name, outcome in outcomes.items() if outcome.faults} == {}
    assert sum(outcome.joined for outcome in outcomes.values()) > 10


def test_the_report_names_every_category(outcomes: dict[str, Outcome]) -> None:
    report = write_report(list(outcomes.values()))
    assert "None." in report
    assert "converted from PyTorch, free first axis" in report


def test_a_wrong_value_is_a_fault(outcomes: dict[str, Outcome]) -> None:
    """The comparison finds a value that differs, alone and at once."""
    (case,) = [outcome.case for name, outcome in outcomes.items() if name == "test_shrink.rows"]
    with Service([case]) as service, Oracle() as oracle:
        verdict = oracle.ask(case)
        service.wait_until_ready()
        states = {entry["name"]: entry for entry in service.post("/v2/repository/index", b"{}")[1]}
        for error, kinds in ((1e-5, {"wrong alone"}), (1e-3, {"wrong alone", "wrong joined"})):
            wrong = [
                Answer({name: values * np.float32(1 + error) for name, values in answer.outputs.items()})
                for answer in verdict.answers
            ]
            assert {kind for kind, _ in drive(case, Verdict(answers=wrong), service, states).faults} == kinds


def test_requests_differ_in_values_and_rows() -> None:
    requests = different_requests({"x": np.arange(6, dtype=np.float32).reshape(3, 2), "n": np.arange(3)})
    assert [len(request["x"]) for request in requests] == [3, 3, 1, 3, 3]
    assert len({request["x"].tobytes() for request in requests}) == 5
    assert all(set(request["n"]) <= {0, 1, 2} for request in requests)
    assert np.isnan(requests[4]["x"]).sum() == 1
