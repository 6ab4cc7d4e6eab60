"""Rules of ai.onnx.ml and of text operators: most take one row of features after the other."""

from collections.abc import Mapping, Sequence

from app.models.row_independence.elementwise import same
from app.models.row_independence.node import Node, Rule, rank_of
from app.models.row_independence.values import RowsInteract, Shape, Value


def _table(node: Node, index: int = 0) -> Shape:
    """The shape of an input of features, whose rows come first.

    Raises:
        RowsInteract: it has another form; a single axis is one row of features.
    """
    value = node.input(index)
    if value.sized or rank_of(value) < 2 or value.shape is None:
        raise RowsInteract("takes the axis of the rows for one of features")
    if value.rows is not None and value.rows.axis != 0:
        raise RowsInteract("takes the axis of the rows for one of features", certain=True)
    return value.shape


def classifier(node: Node) -> Sequence[Value]:
    """A classifier: a label for each row, and scores."""
    rows = _table(node)[0]
    place = node.input(0).rows
    label = Value(shape=(rows,), rows=place)
    return [label, Value(shape=(rows, node.free_size(1, 1)), rows=place)][: node.outputs]


def regressor(node: Node) -> Sequence[Value]:
    """A regressor, a scaler or another operator on rows of features."""
    shape = _table(node)
    return [Value(shape=(shape[0], node.free_size(0, 1)), rows=node.input(0).rows)]


def features(node: Node) -> Sequence[Value]:
    """A transformation of each feature by itself, or of a row's features by each other."""
    return [Value(shape=_table(node), rows=node.input(0).rows)]


def feature_vectorizer(node: Node) -> Sequence[Value]:
    """FeatureVectorizer: joins the features of each row."""
    shapes = [_table(node, index) for index in range(len(node.inputs))]
    rows = node.input(0).rows
    if any(value.rows != rows for value in node.present):
        raise RowsInteract("joins values of which some have no rows")
    return [Value(shape=(shapes[0][0], node.free_size(0, 1)), rows=rows)]


def one_hot_encoder(node: Node) -> Sequence[Value]:
    """OneHotEncoder: adds an axis of categories."""
    value = node.input(0)
    rank = rank_of(value)
    if value.sized or value.shape is None:
        raise RowsInteract("computes with the number of rows", certain=True)
    return [Value(shape=(*value.sizes, node.free_size(0, rank)), rows=value.rows)]


def term_frequencies(node: Node) -> Sequence[Value]:
    """TfIdfVectorizer: counts the terms of each row."""
    return regressor(node)


def zip_map(node: Node) -> Sequence[Value]:
    """ZipMap: a map for each row."""
    return [Value(shape=_table(node)[:1], rows=node.input(0).rows)]


_CLASSIFIERS = "LinearClassifier SVMClassifier TreeEnsembleClassifier"
_REGRESSORS = "LinearRegressor SVMRegressor TreeEnsemble TreeEnsembleRegressor"
_FEATURES = "Imputer Normalizer Scaler"
_ELEMENTWISE = "Binarizer CategoryMapper LabelEncoder"

RULES: Mapping[tuple[str, str], Rule] = {
    **{("ai.onnx.ml", name): classifier for name in _CLASSIFIERS.split()},
    **{("ai.onnx.ml", name): regressor for name in _REGRESSORS.split()},
    **{("ai.onnx.ml", name): features for name in _FEATURES.split()},
    **{("ai.onnx.ml", name): same for name in _ELEMENTWISE.split()},
    ("ai.onnx.ml", "FeatureVectorizer"): feature_vectorizer,
    ("ai.onnx.ml", "OneHotEncoder"): one_hot_encoder,
    ("ai.onnx.ml", "ZipMap"): zip_map,
    ("", "TfIdfVectorizer"): term_frequencies,
}
