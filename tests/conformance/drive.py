"""Send the requests of a case to the service, and compare the answers with the oracle's."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.conformance.cases import BINARY_ONLY, Array, Case, Feeds, datatype_of, graph_inputs, type_name
from tests.conformance.codec import Response, write_request
from tests.conformance.oracle import Answer, Verdict
from tests.conformance.service import Service

JOIN_ATTEMPTS = 3  # rounds of requests at the same time, until the service has joined some
# Allowed units in the last place of an output's largest value. Sums are rounded in another order where rows run
# together, and, in the last place, where a tensor starts at another address.
ULPS_ALONE = 2
ULPS_JOINED = 128


@dataclass
class Outcome:
    """What became of a case.

    Args:
        case: the case.
        served: the service serves it.
        reason: why it is not served, in a few words.
        rightly: it may be refused for that reason.
        alone: requests that were answered alone.
        at_once: requests that were answered among others at the same time.
        joined: those that shared a run of the model with other requests.
        refused: requests that onnxruntime refuses, and the service too.
        without_json: requests whose numbers JSON does not have.
        labels: the service's labels of outputs that are sequences of maps.
        is_random: only types and shapes were compared.
        expected: the source's own expectation holds for onnxruntime's answer; None where it has none.
        faults: each a kind and its description.
    """

    case: Case
    served: bool = False
    reason: str = ""
    rightly: bool = True
    alone: int = 0
    at_once: int = 0
    joined: int = 0
    refused: int = 0
    without_json: int = 0
    is_random: bool = False
    expected: bool | None = None
    faults: list[tuple[str, str]] = field(default_factory=list)

    def fault(self, kind: str, what: str) -> None:
        """Record a fault: `refused wrongly`, `wrong alone` or `wrong joined`."""
        self.faults.append((kind, what))


def drive(case: Case, verdict: Verdict, service: Service, states: Mapping[str, Mapping[str, Any]]) -> Outcome:
    """Compare the service with the oracle for one case.

    Args:
        case: the case.
        verdict: the oracle's.
        service: serves the case.
        states: entries of the repository's index by model.
    """
    outcome = Outcome(case, is_random=verdict.is_random)
    state = states.get(case.name, {})
    outcome.served = state.get("state") == "READY"
    allowed = may_be_refused(case, verdict)
    if not outcome.served:
        outcome.reason = allowed or str(state.get("reason", "not in the index"))
        outcome.rightly = bool(allowed)
        if not allowed:
            outcome.fault("refused wrongly", f"the model: {outcome.reason}")
        return outcome
    if verdict.load_error:
        outcome.fault("wrong alone", f"served, but onnxruntime does not load it: {verdict.load_error}")
        return outcome
    _compare_with_source(case, verdict, outcome)
    status, metadata = service.get(f"/v2/models/{case.name}")
    if status != 200:
        outcome.fault("refused wrongly", f"its metadata: {status} {metadata}")
        return outcome
    datatypes = {tensor["name"]: tensor["datatype"] for tensor in (*metadata["inputs"], *metadata["outputs"])}
    _check_interface(case, verdict, metadata, outcome)
    if outcome.faults:
        return outcome
    caller = _Caller(case, verdict, service, datatypes, [tensor["name"] for tensor in metadata["outputs"]], outcome)
    caller.send_alone()
    caller.send_at_once()
    return outcome


def may_be_refused(case: Case, verdict: Verdict) -> str:
    """The reason for which a model may be refused; empty if it has to be served."""
    graph = case.proto(weights=False).graph
    inputs = {type_name(value): datatype_of(value) for value in graph_inputs(graph)}
    if unknown := sorted(name for name, datatype in inputs.items() if datatype is None):
        return f"inputs without a datatype in the protocol: {', '.join(unknown)}"
    if verdict.load_error:
        return "onnxruntime does not load it"
    if all(answer.error for answer in verdict.answers):
        return "onnxruntime does not run it"
    outputs = {type_name(value): datatype_of(value) for value in graph.output}
    if not any(outputs.values()) and not verdict.labels:
        return f"no output has a datatype in the protocol: {', '.join(sorted(outputs))}"
    if "BF16" in {*inputs.values(), *outputs.values()} and "BYTES" in inputs.values():
        return "strings beside bfloat16, which onnxruntime's Python interface does not take"
    return ""


def _compare_with_source(case: Case, verdict: Verdict, outcome: Outcome) -> None:
    """Whether onnxruntime gives what the source of the model expects, for the first request."""
    answer = verdict.answers[0]
    if case.expected and not answer.error and not verdict.is_random:
        outcome.expected = all(
            name in answer.outputs and _close(answer.outputs[name], values, case.rtol, case.atol)
            for name, values in case.expected.items()
        )


def _check_interface(case: Case, verdict: Verdict, metadata: Mapping[str, Any], outcome: Outcome) -> None:
    graph = case.proto(weights=False).graph
    expected = {
        "inputs": [(value.name, datatype_of(value)) for value in graph_inputs(graph)],
        "outputs": [
            (value.name, datatype_of(value) or "FP32")
            for value in graph.output
            if datatype_of(value) or value.name in verdict.labels
        ],
    }
    for kind, tensors in expected.items():
        got = [(tensor["name"], tensor["datatype"]) for tensor in metadata[kind]]
        if got != tensors:
            outcome.fault("refused wrongly", f"its {kind}: got {got}, expected {tensors}")


@dataclass
class _Caller:
    case: Case
    verdict: Verdict
    service: Service
    datatypes: Mapping[str, str]
    names: Sequence[str]
    outcome: Outcome

    def send_alone(self) -> None:
        """Each request by itself, as binary data and as JSON."""
        for index, feeds in enumerate(self.case.requests):
            for binary in (True, False):
                if (request := self._encode(feeds, binary=binary)) is not None:
                    (answer,) = self.service.infer(self.case.name, [request])
                    self._compare(index, answer, binary=binary, alone=True)

    def send_at_once(self) -> None:
        """All requests at the same time, alternately as binary data and as JSON."""
        requests = self.case.requests if len(self.case.requests) > 1 else [self.case.requests[0]] * 3
        indices = [index % len(self.case.requests) for index in range(len(requests))]
        for attempt in range(JOIN_ATTEMPTS):
            flags = [(index + attempt) % 2 == 0 for index in range(len(requests))]
            encoded = []
            for index, feeds in enumerate(requests):
                if (request := self._encode(feeds, binary=flags[index])) is None:
                    flags[index] = True
                    request = self._encode(feeds, binary=True)
                assert request is not None
                encoded.append(request)
            before = self.outcome.joined
            answers = self.service.infer(self.case.name, encoded)
            for index, answer in enumerate(answers):
                self._compare(indices[index], answer, binary=flags[index], alone=False)
            if attempt and (self.outcome.joined > before or not self._may_be_joined()):
                break
        self._check_statistics()

    def _check_statistics(self) -> None:
        """Where requests were joined, the statistics have runs of more rows than any request alone."""
        _, statistics = self.service.get(f"/v2/models/{self.case.name}/stats")
        sizes = [batch["batch_size"] for batch in statistics["model_stats"][0]["batch_stats"]]
        if self.outcome.joined and max(sizes, default=0) <= min(map(_rows, self.case.requests)):
            self.outcome.fault("wrong joined", f"statistics: {self.outcome.joined} joined, but batch sizes {sizes}")

    def _may_be_joined(self) -> bool:
        return all(values.ndim for values in self.case.requests[0].values()) and "rows" in self.case.name

    def _encode(self, feeds: Mapping[str, Array], *, binary: bool) -> tuple[bytes, int | None] | None:
        if not binary and not all(_is_finite(values) for values in feeds.values()):
            self.outcome.without_json += 1
            return None
        return write_request(feeds, self.datatypes, outputs=None if binary else self.names, binary=binary)

    def _compare(self, index: int, answer: tuple[int, Mapping[str, str], bytes], *, binary: bool, alone: bool) -> None:
        """Compare an answer with the oracle's, and count it."""
        status, headers, body = answer
        expected = self.verdict.answers[index]
        where = f"request {index}, {'binary' if binary else 'JSON'}"
        wrong = "wrong alone" if alone else "wrong joined"
        if expected.error:
            if status == 200:
                self.outcome.fault(wrong, f"{where}: answered, but onnxruntime says: {expected.error}")
            elif "error" not in json.loads(body):
                self.outcome.fault(wrong, f"{where}: {status} without a message: {body[:200]!r}")
            else:
                self.outcome.refused += 1
            return
        if not binary and self._has_no_json(expected):
            self.outcome.without_json += 1
            if status != 400:
                self.outcome.fault(wrong, f"{where}: {status} for values that are not finite, expected 400")
            return
        if status != 200:
            self.outcome.fault("refused wrongly", f"{where}{'' if alone else ', at once'}: {status} {body[:300]!r}")
            return
        response = Response(headers, body)
        if alone:
            self.outcome.alone += 1
        else:
            self.outcome.at_once += 1
            self.outcome.joined += response.rows_of_run > max(1, _rows(self.case.requests[index]))
        for name in self.names:
            if problem := self._difference(response, name, expected.outputs[name], alone=alone):
                self.outcome.fault(wrong, f"{where}: output {name!r}: {problem}")
                return

    def _has_no_json(self, expected: Answer) -> bool:
        return not all(
            _is_finite(values)
            for name, values in expected.outputs.items()
            if self.datatypes.get(name) not in {None, *BINARY_ONLY}
        )

    def _difference(self, response: Response, name: str, expected: Array, *, alone: bool) -> str:
        """How an output differs from the oracle's; empty if it does not."""
        if response.outputs.get(name) != self.datatypes[name]:
            return f"got {response.outputs.get(name)}, expected {self.datatypes[name]}"
        got = response.array(name)
        if got.shape != expected.shape:
            return f"got shape {got.shape}, expected {expected.shape}"
        if self.verdict.is_random or _equal(got, expected):
            return ""
        if expected.dtype.kind == "f":
            eps = 2.0**-7 if self.datatypes[name] == "BF16" else float(np.finfo(expected.dtype).eps)
            largest = float(np.abs(expected[np.isfinite(expected)].astype(np.float64)).max(initial=0))
            ulps = ULPS_ALONE if alone else ULPS_JOINED
            if _close(got, expected, 0, ulps * eps * largest):
                return ""
        return f"got {_excerpt(got)}, expected {_excerpt(expected)}"


def _rows(feeds: Feeds) -> int:
    return max([values.shape[0] if values.ndim else 1 for values in feeds.values()], default=1)


def _is_finite(values: Array) -> bool:
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())


def _equal(got: Array, expected: Array) -> bool:
    return bool(np.array_equal(got, expected, equal_nan=expected.dtype.kind == "f"))


def _close(got: Array, expected: Array, rtol: float, atol: float) -> bool:
    if got.shape != expected.shape:
        return False
    if expected.dtype.kind != "f" or got.dtype.kind != "f":
        return bool(np.array_equal(got, expected))
    return bool(np.allclose(got.astype(np.float64), expected.astype(np.float64), rtol, atol, equal_nan=True))


def _excerpt(values: Array) -> str:
    return " ".join(str(values.reshape(-1)[:6]).split()) + f" {values.dtype}{list(values.shape)}"
