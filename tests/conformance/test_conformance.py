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
    "test_expand_shape_model1", "test_sign_model", "test_shrink", "test_gradient_of_add", "test_sequence_model1",
    "test_operator_chunk", "test_operator_concat2", "test_PixelShuffle",
)  # fmt: skip


def chosen() -> Iterator[Case]:
    """Some models of the backend tests, as given and with a free first axis."""
    for kind in ("simple", "pytorch-converted", "pytorch-operator"):
        for case in file_cases(kind):
            if case.name in NAMES:
                yield from (case, *with_free_rows(case))


class Driven:
    """The chosen cases at a running service."""

    def __init__(self, service: Service, oracle: Oracle) -> None:
        self._service = service
        self._verdicts = {case.name: oracle.ask(case) for case in chosen()}
        service.wait_until_ready()
        self._states = {entry["name"]: entry for entry in service.post("/v2/repository/index", b"{}")[1]}
        self.outcomes = {case.name: self.drive(case, self._verdicts[case.name]) for case in chosen()}

    def drive(self, case: Case, verdict: Verdict) -> Outcome:
        return drive(case, verdict, self._service, self._states)

    def verdict(self, name: str) -> Verdict:
        return self._verdicts[name]


@pytest.fixture(scope="module")
def driven() -> Iterator[Driven]:
    with Service(chosen()) as service, Oracle() as oracle:
        yield Driven(service, oracle)


def test_nothing_is_wrong(driven: Driven) -> None:
    assert {name: outcome.faults for name, outcome in driven.outcomes.items() if outcome.faults} == {}
    assert sum(outcome.joined for outcome in driven.outcomes.values()) > 10


def test_the_report_names_every_category(driven: Driven) -> None:
    report = write_report(list(driven.outcomes.values()))
    assert "None." in report
    assert "converted from PyTorch, free first axis" in report


@pytest.mark.parametrize(("error", "kinds"), [(1e-5, {"wrong alone"}), (1e-3, {"wrong alone", "wrong joined"})])
def test_a_wrong_value_is_a_fault(driven: Driven, error: float, kinds: set[str]) -> None:
    """The comparison finds a value that differs, alone and at once."""
    name = "test_shrink.rows"
    wrong = [
        Answer({output: values * np.float32(1 + error) for output, values in answer.outputs.items()})
        for answer in driven.verdict(name).answers
    ]
    outcome = driven.drive(driven.outcomes[name].case, Verdict(answers=wrong))
    assert {kind for kind, _ in outcome.faults} == kinds


def test_requests_differ_in_values_and_rows() -> None:
    requests = different_requests({"x": np.arange(6, dtype=np.float32).reshape(3, 2), "n": np.arange(3)})
    assert [len(request["x"]) for request in requests] == [3, 3, 1, 3, 3]
    assert len({request["x"].tobytes() for request in requests}) == 5
    assert all(set(request["n"]) <= {0, 1, 2} for request in requests)
    assert np.isnan(requests[4]["x"]).sum() == 1
