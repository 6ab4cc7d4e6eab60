"""Encoding of tables: compared with scikit-learn's preprocessing, and inside the graph, run by onnxruntime."""

import json
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from kronmodel.data.tables.columns import Column
from kronmodel.data.tables.encoding import TableEncoding, encoding_from_json, encoding_json
from kronmodel.data.tables.fitting import Impute, fit_encoding
from kronmodel.export.encoding_graph import add_encoding, feeds

N = 211


def table(seed: int = 0) -> dict[str, NDArray[Any]]:
    """Columns of every kind, with missing values, rare categories and names that collide with those in the graph."""
    rng = np.random.default_rng(seed)
    size = rng.normal(5, 2, N)
    size[rng.random(N) < 0.1] = np.nan
    codes = np.array([f"c{number}" for number in rng.zipf(1.6, N).clip(max=90)], object)
    town = rng.choice(["Köln", "a b", "x,y", ""], N, p=[0.5, 0.2, 0.2, 0.1]).astype(object)
    when = rng.integers(1_600_000_000, 1_800_000_000, N).astype(np.float64)
    when[3] = np.nan
    return {
        "size (m²)": size,
        "logits": rng.normal(1e12, 3, N),
        "network/input": np.where(rng.random(N) < 0.5, 1.0, 0.0),
        "code": codes,
        "rows/texts": town,
        "when": when,
    }


KINDS = {"size (m²)": "number", "logits": "number", "network/input": "boolean", "code": "category",
         "rows/texts": "category", "when": "date"}  # fmt: skip


def fit(rows: dict[str, NDArray[Any]], impute: Impute = "median") -> TableEncoding:
    columns = [Column(name=name, kind=KINDS[name], why="", values=values) for name, values in rows.items()]  # type: ignore[arg-type]
    return fit_encoding(columns, ["id"], impute=impute, reserved=("logits", "probabilities"))[0]


def oracle(rows: dict[str, NDArray[Any]], impute: Impute) -> ColumnTransformer:
    strategy = {"most-frequent": "most_frequent"}.get(impute, impute)
    names = list(rows)
    at = {name: [names.index(name)] for name in names}
    numbers = FunctionTransformer(lambda x: x.astype(np.float64))

    def scaled(how: str) -> Any:
        return make_pipeline(numbers, SimpleImputer(strategy=how), StandardScaler())

    def marked(marker: Any) -> Any:
        return FunctionTransformer(lambda x: (x == marker if marker == "" else np.isnan(x.astype(np.float64))) * 1.0)

    one_hot = OneHotEncoder(
        min_frequency=2, max_categories=51, handle_unknown="infrequent_if_exist", sparse_output=False
    )
    steps = [(f"scaled {n}", scaled(strategy), at[n]) for n in ("size (m²)", "logits", "network/input", "when")]
    steps += [(f"missing {n}", marked(None), at[n]) for n in ("size (m²)", "when")]
    filled = SimpleImputer(strategy="most_frequent", missing_values="")
    steps += [
        ("code", one_hot, at["code"]),
        ("town", make_pipeline(filled, OneHotEncoder(sparse_output=False)), at["rows/texts"]),
    ]
    steps += [("no town", make_union(marked("")), at["rows/texts"])]
    return ColumnTransformer(steps).fit(np.stack([each.astype(object) for each in rows.values()], 1))


@pytest.mark.parametrize("impute", ["median", "mean", "most-frequent"])
def test_the_encoding_is_that_of_scikit_learn(impute: Impute) -> None:
    rows, new = table(0), table(1)
    encoding, expected = fit(rows, impute), oracle(rows, impute)
    names = np.array(encoding.feature_names)
    # Sines and cosines have no counterpart; scikit-learn puts the column of rare codes directly behind their others.
    ours = [*names[:6], *(n for n in names if n.startswith("code = c")), "code = other"]
    ours += [n for n in names if n.startswith("rows/texts =")] + ["rows/texts missing"]
    index = [names.tolist().index(name) for name in ours]
    for each in (rows, new):
        want = expected.transform(np.stack([column.astype(object) for column in each.values()], 1)).astype(np.float64)
        got = encoding.apply(each)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got[:, index], want, rtol=1e-6, atol=1e-6)


def test_dates_go_round_with_year_week_and_day() -> None:
    noon = np.array(
        ["2024-07-01T12", "2024-07-08T12", "2024-07-02T00", "2024-01-01T12", "2023-07-02T00"], "datetime64[s]"
    )
    rows = {"when": noon.astype(np.int64).astype(np.float64)}
    encoding = fit_encoding(
        [Column(name="when", kind="date", why="", values=rows["when"])], [], impute="mean", reserved=()
    )[0]
    found = dict(zip(encoding.feature_names, encoding.apply(rows).T, strict=True))
    assert list(found) == ["when"] + [
        f"when {f} of the {t}" for t in ("year", "week", "day") for f in ("sine", "cosine")
    ]
    week = np.stack([found["when sine of the week"], found["when cosine of the week"]], 1)
    np.testing.assert_allclose(week[0], week[1], atol=1e-6)  # Mondays
    np.testing.assert_allclose(week[0], [np.sin(2 * np.pi * 1 / 7), np.cos(2 * np.pi / 7)], atol=1e-6)
    np.testing.assert_allclose(found["when cosine of the day"], [-1, -1, 1, -1, 1], atol=1e-6)
    np.testing.assert_allclose(found["when cosine of the year"][2], found["when cosine of the year"][4], atol=0.02)
    assert abs(found["when cosine of the year"][3] - 1) < 0.01


def identity(width: int) -> onnx.ModelProto:
    """A model that returns its input, to which an encoding is added."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]) for name in ("input", "logits")]
    graph = helper.make_graph([helper.make_node("Identity", ["input"], ["logits"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    return model


@pytest.mark.parametrize("kept", [list(KINDS), ["size (m²)"], ["code"], ["when", "rows/texts"], ["network/input"]])
def test_the_graph_encodes_as_training_does(kept: list[str]) -> None:
    rows = {name: values for name, values in table(0).items() if name in kept}
    encoding = fit(rows)
    model = identity(encoding.width)
    add_encoding(model, encoding)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert [each.name for each in session.get_inputs()] == [{"logits": "logits_"}.get(name, name) for name in rows]
    new = {name: values for name, values in table(5).items() if name in kept}
    for each in (rows, new, {name: values[:1] for name, values in new.items()}):
        (got,) = session.run(None, feeds(encoding, each))
        want = encoding.apply(each)
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
        exact = [index for index, name in enumerate(encoding.feature_names) if "sine of" not in name]
        np.testing.assert_array_equal(got[:, exact], want[:, exact])


def test_an_encoding_survives_json_and_a_changed_one_is_refused() -> None:
    encoding = fit(table())
    given = json.loads(json.dumps(encoding_json(encoding)))
    assert encoding_from_json(given) == encoding
    changes: list[tuple[Any, ...]] = [
        ("columns", []), ("columns", 3), ("left_out", [1]), ("columns", 0, "kind", "x"), ("columns", 0, "mean", "1"),
        ("columns", 0, "turns", ["month"]), ("columns", 3, "values", []), ("columns", 0, "inverse", float("nan")),
        ("columns", 0, "fill", None), ("columns", 3, "fill", 1), ("columns", 0, "more", 1), ("columns", 1, "name", 5),
    ]  # fmt: skip
    for *path, last, value in changes:
        wrong = json.loads(json.dumps(given))
        inner = wrong
        for step in path:
            inner = inner[step]
        inner[last] = value
        with pytest.raises(ValueError, match="encod"):
            encoding_from_json(wrong)
