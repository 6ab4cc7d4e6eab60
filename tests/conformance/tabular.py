"""Train tabular models with scikit-learn, xgboost and lightgbm, and export them as their users do by default.

Run in an environment of its own (`requirements.txt`), with the folder to write to: for each model NAME.onnx, and
NAME.pkl with its inputs and the predictions of the library that trained it.
"""

import pickle
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnxmltools
import xgboost
from onnxmltools.convert.common import data_types as onnxmltools_types
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn import ensemble, linear_model, naive_bayes, neighbors, neural_network, svm, tree
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

# A model: its name, the ONNX model, inputs by name, the source's outputs in the graph's order (None: not compared).
Exported = tuple[str, Any, dict[str, np.ndarray], list[np.ndarray | None]]

IRIS = load_iris()
X, Y = IRIS.data.astype(np.float32), IRIS.target
NAMES = IRIS.target_names[Y].astype(object)
CANCER_X, CANCER_Y = (array[:, ...] for array in load_breast_cancer(return_X_y=True))
CANCER_X = MinMaxScaler().fit_transform(CANCER_X).astype(np.float32)
SUGAR_X, SUGAR_Y = load_diabetes(return_X_y=True)
SUGAR_X = SUGAR_X.astype(np.float32)


def classifiers() -> Iterator[Exported]:
    """Classifiers of numbers, with the default ZipMap at their end."""
    plain = linear_model.LogisticRegression(max_iter=1000)
    models = {
        "logistic-regression": (plain, X, Y),
        "logistic-regression-names": (linear_model.LogisticRegression(max_iter=1000), X, NAMES),
        "logistic-regression-binary": (linear_model.LogisticRegression(max_iter=1000), CANCER_X, CANCER_Y),
        "random-forest": (ensemble.RandomForestClassifier(20, random_state=0), X, NAMES),
        "gradient-boosting": (ensemble.GradientBoostingClassifier(n_estimators=20, random_state=0), CANCER_X, CANCER_Y),
        "extra-trees": (ensemble.ExtraTreesClassifier(20, random_state=0), X, Y),
        "decision-tree": (tree.DecisionTreeClassifier(random_state=0), X, NAMES),
        "nearest-neighbours": (neighbors.KNeighborsClassifier(), X, Y),
        "naive-bayes": (naive_bayes.GaussianNB(), X, Y),
        "support-vectors": (svm.SVC(random_state=0), X, Y),
        "perceptron": (neural_network.MLPClassifier((8,), max_iter=300, random_state=0), X, Y),
        "scaled-logistic-regression": (make_pipeline(StandardScaler(), plain), X, NAMES),
    }
    for name, (model, inputs, targets) in models.items():
        model.fit(inputs, targets)
        rows = inputs[:: len(inputs) // 6][:6]
        # SVC has no probabilities; its export returns the votes as scores.
        scores = model.predict_proba(rows) if hasattr(model, "predict_proba") else None
        yield name, to_onnx(model, inputs[:1]), {"X": rows}, [model.predict(rows), scores]
    model = linear_model.LogisticRegression(max_iter=1000).fit(X, Y)
    rows = X[::25]
    columns = to_onnx(model, [("X", FloatTensorType([None, 4]))], options={id(model): {"zipmap": "columns"}})
    yield "columns-of-probabilities", columns, {"X": rows}, [model.predict(rows), *model.predict_proba(rows).T]


def pipelines() -> Iterator[Exported]:
    """Pipelines with strings among their inputs."""
    rng = np.random.default_rng(0)
    ports = rng.choice(["Cherbourg", "Queenstown", "Southampton"], 200).astype(object)
    classes = rng.integers(1, 4, 200)
    ages = rng.uniform(1, 80, 200).astype(np.float32)
    survived = (ages < 40) ^ (classes == 3)
    import pandas

    frame = pandas.DataFrame({"age": ages, "port": ports, "class": classes})
    columns = ColumnTransformer(
        [("numbers", StandardScaler(), ["age"]), ("categories", OneHotEncoder(), ["port", "class"])]
    )
    passengers = make_pipeline(columns, linear_model.LogisticRegression()).fit(frame, survived.astype(np.int64))
    types = [
        ("age", FloatTensorType([None, 1])),
        ("port", StringTensorType([None, 1])),
        ("class", Int64TensorType([None, 1])),
    ]
    few = frame[:6]
    yield (
        "passengers",
        to_onnx(passengers, initial_types=types),
        {name: few[[name]].to_numpy() for name in ("age", "port", "class")},
        [passengers.predict(few), passengers.predict_proba(few)],
    )
    texts = [
        "the cat sat on the mat",
        "dogs bark at night",
        "a cat and a dog",
        "night and day",
        "my cat",
        "bark of a tree",
    ]
    topics = np.array(["cats", "dogs", "cats", "time", "cats", "trees"], object)
    words = make_pipeline(TfidfVectorizer(lowercase=False), linear_model.LogisticRegression()).fit(texts, topics)
    yield (
        "words",
        to_onnx(words, initial_types=[("text", StringTensorType([None, 1]))]),
        {"text": np.array(texts, object).reshape(-1, 1)},
        [words.predict(texts), words.predict_proba(texts)],
    )


def others() -> Iterator[Exported]:
    """Regressions, clusters, outliers, and transformations."""
    models = {
        "linear-regression": linear_model.LinearRegression(),
        "forest-regression": ensemble.RandomForestRegressor(20, random_state=0),
        "vector-regression": svm.SVR(),
    }
    rows = SUGAR_X[::80]
    for name, model in models.items():
        model.fit(SUGAR_X, SUGAR_Y)
        yield name, to_onnx(model, SUGAR_X[:1]), {"X": rows}, [model.predict(rows).reshape(-1, 1)]
    doubles = linear_model.LinearRegression().fit(SUGAR_X.astype(np.float64), SUGAR_Y)
    exported = to_onnx(doubles, [("X", DoubleTensorType([None, 10]))])
    yield "linear-regression-doubles", exported, {"X": rows.astype(np.float64)}, [doubles.predict(rows).reshape(-1, 1)]
    both = linear_model.Ridge().fit(SUGAR_X, np.stack([SUGAR_Y, SUGAR_Y**2], 1))
    yield "two-targets", to_onnx(both, SUGAR_X[:1]), {"X": rows}, [both.predict(rows)]
    clusters = KMeans(3, n_init=1, random_state=0).fit(X)
    yield "clusters", to_onnx(clusters, X[:1]), {"X": X[::25]}, [clusters.predict(X[::25]), clusters.transform(X[::25])]
    outliers = ensemble.IsolationForest(n_estimators=20, random_state=0).fit(X)
    yield "outliers", to_onnx(outliers, X[:1], target_opset={"": 17, "ai.onnx.ml": 3}), {"X": X[::25]}, [
        outliers.predict(X[::25]).reshape(-1, 1), outliers.decision_function(X[::25]).reshape(-1, 1),
    ]  # fmt: skip
    components = PCA(2).fit(X)
    yield "components", to_onnx(components, X[:1]), {"X": X[::25]}, [components.transform(X[::25])]


def boosted() -> Iterator[Exported]:
    """Models of xgboost and lightgbm, by onnxmltools."""
    types = [("X", onnxmltools_types.FloatTensorType([None, 4]))]
    wide = [("X", onnxmltools_types.FloatTensorType([None, 10]))]
    rows, sugar = X[::25], SUGAR_X[::80]
    classifier = xgboost.XGBClassifier(n_estimators=10).fit(X, Y)
    yield "xgboost", onnxmltools.convert_xgboost(classifier, initial_types=types), {"X": rows}, [
        classifier.predict(rows), classifier.predict_proba(rows),
    ]  # fmt: skip
    regressor = xgboost.XGBRegressor(n_estimators=10).fit(SUGAR_X, SUGAR_Y)
    yield (
        "xgboost-regression",
        onnxmltools.convert_xgboost(regressor, initial_types=wide),
        {"X": sugar},
        [regressor.predict(sugar).reshape(-1, 1)],
    )
    classifier = lightgbm.LGBMClassifier(n_estimators=10, verbose=-1).fit(X, Y)
    yield "lightgbm", onnxmltools.convert_lightgbm(classifier, initial_types=types), {"X": rows}, [
        classifier.predict(rows), classifier.predict_proba(rows),
    ]  # fmt: skip
    regressor = lightgbm.LGBMRegressor(n_estimators=10, verbose=-1).fit(SUGAR_X, SUGAR_Y)
    yield (
        "lightgbm-regression",
        onnxmltools.convert_lightgbm(regressor, initial_types=wide),
        {"X": sugar},
        [regressor.predict(sugar).reshape(-1, 1)],
    )


def main() -> None:
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for export in (classifiers, pipelines, others, boosted):
        for name, model, inputs, outputs in export():
            (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
            with (folder / f"{name}.pkl").open("wb") as file:
                pickle.dump((inputs, outputs), file)
            print(name, flush=True)


if __name__ == "__main__":
    main()
