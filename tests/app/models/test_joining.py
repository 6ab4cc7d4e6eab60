"""Which models share runs among requests: by the graph, by runs of made-up rows, and by config.pbtxt."""

import asyncio
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, parser

from app.models.model import Model
from app.models.repository import Repository
from app.settings import Settings
from tests.app import oip_models
from tests.app.graphs import classifier, publish, weights

APART = "each row of every output depends on the same row of the inputs only"
GOOD = classifier(weights([6, 8, 3]))


def load(folder: Path, **options: object) -> dict[str, Model]:
    """Verify and load all models of a folder, as the service does."""
    repository = asyncio.run(Repository.load(Settings.model_validate({"models": folder, **options})))
    assert repository.failures == {}
    return dict(repository.models)


def of(text: str, opset: int = 17) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]>\n{text}')


def cumulative() -> onnx.ModelProto:
    """Sums of integers over the rows; on rows of zeros every row has the same."""
    return of("g (int64[n,4] x) => (int64[n,4] y) <int64 a = {0}> { y = CumSum (x, a) }")


def scaled() -> onnx.ModelProto:
    """Division by 255 if any value of the batch is above 1, as images often are."""
    return of(
        """g (float[n,4] x) => (float[n,4] y) <float one = {1}, float k = {255}> {
           m = ReduceMax <keepdims = 0> (x) b = Greater (m, one) d = Div (x, k) y = Where (b, d, x) }"""
    )


def one_row_only() -> onnx.ModelProto:
    return of("g (float[n,3,4] x) => (float[m,12] y) <int64[2] s = {1,12}> { y = Reshape (x, s) }")


def unknown() -> onnx.ModelProto:
    """Rows that keep apart by an operator that is not analysed."""
    return of(
        """g (float[n,2,3] x) => (float[n,4,4] y) { size = Constant <value_ints = [4,4]> ()
           y = CenterCropPad <axes = [1,2]> (x, size) }""",
        opset=18,
    )


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("joining")
    publish(folder, "good", GOOD)
    publish(folder, "fixed", classifier(weights([6, 3]), batch=4))
    publish(folder, "cumulative", cumulative())
    publish(folder, "scaled", scaled())
    publish(folder, "one-row", one_row_only())
    publish(folder, "vector", oip_models.echo(TensorProto.FLOAT, ["samples"]))
    publish(folder, "unnamed", oip_models.echo(TensorProto.FLOAT, [None, 3]))
    publish(folder, "stated-one", of("g (float[n,3] x) => (int64[1] y) { y = ArgMax <axis = 1, keepdims = 0> (x) }"))
    publish(folder, "texts", oip_models.echo(TensorProto.STRING, [None, 3]))
    configs: dict[str, tuple[onnx.ModelProto, str]] = {
        "zero": (GOOD, "max_batch_size: 0"),
        "bounded": (GOOD, "max_batch_size: 8\ndynamic_batching { }"),
        "alone": (GOOD, "max_batch_size: 8"),
        "broken": (GOOD, "max_batch_size: 8\ndynamic_batching {"),
        "mixing": (cumulative(), "dynamic_batching { }"),
        "listed": (oip_models.echo(TensorProto.FLOAT, ["batch"]), "max_batch_size: 16 dynamic_batching {}"),
        "asked": (unknown(), "dynamic_batching { }"),
    }
    publish(folder, "unasked", unknown())
    for name, (made, config) in configs.items():
        publish(folder, name, made)
        (folder / name / "config.pbtxt").write_text(config)
    return load(folder)


@pytest.mark.parametrize(
    ("name", "max_rows", "reason"),
    [
        ("good", 1024, APART),
        ("unnamed", 1024, APART),
        ("stated-one", 1024, APART),
        ("texts", 1024, APART),
        ("fixed", 0, "its inputs and outputs have no batch axis"),
        ("cumulative", 0, "operator CumSum 'y' sums over the rows before each row"),
        ("scaled", 0, "operator ReduceMax 'm' reduces over all rows"),
        ("one-row", 0, "its inputs and outputs have no batch axis"),
        ("vector", 0, "its inputs and outputs have no batch axis"),
        ("zero", 0, "max_batch_size is 0 in config.pbtxt"),
        ("bounded", 8, APART),
        ("alone", 0, "config.pbtxt has max_batch_size without dynamic_batching"),
        ("broken", 0, "config.pbtxt cannot be read: line 2: the file ends, expected '}'"),
        ("mixing", 0, "operator CumSum 'y' sums over the rows before each row"),
        ("listed", 16, APART),
    ],
)
def test_whether_requests_share_runs_and_why(loaded: dict[str, Model], name: str, max_rows: int, reason: str) -> None:
    joining = loaded[name].engine.joining
    assert (joining.max_rows, joining.reason) == (max_rows, reason)


def test_the_first_axis_is_the_batch_by_its_form_or_by_the_configuration(loaded: dict[str, Model]) -> None:
    axes = {name: model.signature.batchable for name, model in loaded.items()}
    without = {"fixed", "one-row", "vector", "zero"}
    assert axes == {name: name not in without for name in loaded}
    limits = {name: model.signature.max_batch for name, model in loaded.items() if model.signature.limited}
    assert {"bounded": 8, "alone": 8, "listed": 16, "good": 1024}.items() <= limits.items()
    assert "cumulative" not in limits


def test_dynamic_batching_asks_for_what_the_graph_does_not_show(loaded: dict[str, Model]) -> None:
    unasked, asked = loaded["unasked"].engine.joining, loaded["asked"].engine.joining
    assert unasked.max_rows == 0
    assert unasked.reason.endswith("is not known to keep rows apart")
    assert asked.max_rows == 1024
    assert asked.reason == f"dynamic_batching in config.pbtxt; {unasked.reason}"


def test_the_log_says_why_and_warns_of_made_up_inputs_and_of_the_configuration(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    far = of(
        """g (float[n,2] x) => (float[n,2] y) <float k = {1000}, float[2] t = {7,8}> {
           l = Mul (x, k) i = Cast <to = 7> (l) y = Gather (t, i) }"""
    )
    publish(tmp_path, "far", far)
    publish(tmp_path, "good", GOOD)
    publish(tmp_path, "broken", GOOD)
    (tmp_path / "broken" / "config.pbtxt").write_text("name: 'x'\nmax_batch_size: eight\n")
    with caplog.at_level("INFO"):
        load(tmp_path)
    found = {record.getMessage(): record.levelname for record in caplog.records if "version 1" in record.getMessage()}
    made_up = [
        message for message in found if message.startswith("far version 1: requests run alone: its run on made-up")
    ]
    assert [found[message] for message in made_up] == ["WARNING"]
    assert found[f"good version 1: requests share runs of up to 1024 rows: {APART}"] == "INFO"
    reason = (
        "config.pbtxt cannot be read: line 2: max_batch_size: got 'eight', expected an integer from 0 to 2147483647"
    )
    assert found[f"broken version 1: requests run alone: {reason}"] == "WARNING"


def test_a_changed_configuration_takes_effect_at_the_next_refresh(tmp_path: Path) -> None:
    publish(tmp_path, "good", GOOD)

    async def main() -> None:
        repository = await Repository.load(Settings.model_validate({"models": tmp_path}))
        before = repository.models["good"]
        await repository.refresh()
        assert repository.models["good"] is before
        (tmp_path / "good" / "config.pbtxt").write_text("max_batch_size: 4 dynamic_batching {}")
        await repository.refresh()
        assert repository.models["good"].engine.joining.max_rows == 4

    asyncio.run(main())
