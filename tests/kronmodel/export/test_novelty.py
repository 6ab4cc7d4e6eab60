"""The detector of images that are unlike the training images, on digits, letters, sketches and clothes."""

import copy
import gzip
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from app.models.novelty import Novelty as ServedNovelty
from app.models.novelty import edge_histograms as served_histograms
from app.models.samples import SamplesError
from kronmodel.data.dataset import Dataset
from kronmodel.data.file_options import FileOptions
from kronmodel.data.registry import load
from kronmodel.export.novelty import Novelty, edge_histograms
from kronmodel.export.unlike_images import unlike_images

# Letters that are drawn much like a digit are left out: B D G I J O Q S Z, b g i j l o q s y z.
LETTERS = "ACEFHKLMNPRTUVWXYacdefhkmnprtuvwx"
FASHION = Path("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz")
MAX_OF_DIGITS = 0.02
MIN_OF_OTHERS = 0.8

Images = NDArray[np.float32]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("mnist-5k", lambda line: None, FileOptions())


@pytest.fixture(scope="module")
def novelty(digits: Dataset) -> Novelty:
    found = Novelty.fit(digits)
    assert found is not None
    return found


def framed(drawing: Image.Image) -> Images:
    """Fit a drawing into 20x20 pixels with its centre of mass in the middle of 28x28, as the page does."""
    small = drawing.crop(drawing.getbbox())
    scale = 20 / max(small.size)
    small = small.resize(
        (max(1, round(small.width * scale)), max(1, round(small.height * scale))), Image.Resampling.BOX
    )
    values = np.asarray(small, np.float32) / 255
    rows, columns = np.indices(values.shape)
    middles = [(values * each).sum() / values.sum() for each in (rows, columns)]
    top, left = (min(max(round(13.5 - at), 0), 28 - side) for at, side in zip(middles, values.shape, strict=True))
    found = np.zeros((28, 28), np.float32)
    found[top : top + values.shape[0], left : left + values.shape[1]] = values
    return found


def letters() -> Images:
    font = ImageFont.load_default(72)
    drawn = []
    for letter in LETTERS:
        for angle in (-8, 0, 8):
            drawing = Image.new("L", (140, 140))
            ImageDraw.Draw(drawing).text((40, 20), letter, fill=255, font=font, stroke_width=2)
            drawn.append(framed(drawing.rotate(angle, Image.Resampling.BICUBIC)))
    return np.stack(drawn)


def sketch(*lines: list[tuple[float, float]]) -> Images:
    drawing = Image.new("L", (224, 224))
    for line in lines:
        ImageDraw.Draw(drawing).line(line, fill=255, width=17, joint="curve")
    return framed(drawing)


def _height_of_a_heart(t: float) -> float:
    return 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)


def sketches() -> Images:
    turn = [2 * math.pi * i / 80 for i in range(81)]
    heart = [(112 + 96 * math.sin(t) ** 3, 112 - 6 * _height_of_a_heart(t)) for t in turn]
    star = [(112 + 90 * math.sin(4 * math.pi * i / 5), 112 - 90 * math.cos(4 * math.pi * i / 5)) for i in range(6)]
    fish = [(100 + 70 * math.cos(t), 112 + 45 * math.sin(t)) for t in turn]
    return np.stack(
        [
            sketch(heart),
            sketch(star),
            sketch([(30, 30), (190, 30), (190, 190), (30, 190), (30, 30)]),
            sketch([(30, 30), (190, 190)], [(190, 30), (30, 190)]),
            sketch([(112, 20), (112, 200)], [(20, 112), (200, 112)]),
            sketch([(20, 112), (200, 112)], [(150, 60), (200, 112), (150, 164)]),
            sketch(fish, [(165, 112), (210, 70), (210, 155), (165, 112)]),
            sketch([(30, 80), (190, 80)], [(30, 150), (190, 150)]),
        ]
    )


def fraction(novelty: Novelty, images: NDArray[np.floating[Any]]) -> float:
    return float(novelty.unlike(images.astype(np.float32)).mean())


def test_few_digits_of_the_test_are_marked(digits: Dataset, novelty: Novelty) -> None:
    assert 0 < novelty.marked(digits, digits.x_test) <= MAX_OF_DIGITS


def test_most_sketches_and_a_heart_are_marked(novelty: Novelty) -> None:
    drawn = sketches()
    assert fraction(novelty, drawn[:1]) == 1
    assert fraction(novelty, drawn) >= MIN_OF_OTHERS


def test_letters_are_marked_many_times_more_often_than_digits(novelty: Novelty) -> None:
    assert fraction(novelty, letters()) >= 25 * MAX_OF_DIGITS
    without_network = copy.copy(novelty)
    without_network.limit = np.float32(np.inf)  # type: ignore[assignment]
    assert fraction(novelty, letters()) >= fraction(without_network, letters()) + 0.1


def test_noise_and_inverted_digits_are_marked(novelty: Novelty, digits: Dataset) -> None:
    noise = np.random.default_rng(0).random((100, 28, 28))
    assert fraction(novelty, noise) == 1
    assert fraction(novelty, 1 - digits.x_test[:200].reshape(-1, 28, 28)) >= MIN_OF_OTHERS


def test_fitting_leaves_random_states_unchanged(digits: Dataset) -> None:
    few = replace(digits, x_train=digits.x_train[::2], y_train=digits.y_train[::2])
    before, before_numpy = torch.get_rng_state(), np.random.get_state(legacy=False)
    first, second = Novelty.fit(few), Novelty.fit(few)
    assert first is not None
    assert second is not None
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_equal(np.random.get_state(legacy=False), before_numpy)
    assert first.to_bytes() == second.to_bytes()


@pytest.mark.parametrize("shape", [(28, 28), (20, 31)])
def test_made_images_are_unlike_and_of_the_same_kind(digits: Dataset, shape: tuple[int, int]) -> None:
    images = np.zeros((300, *shape), np.float32)
    images[:, :20, :28] = digits.x_train[:300].reshape(-1, 28, 28)[:, 4:24]
    made = unlike_images(images, 501, np.random.default_rng(0))
    assert made.shape == (501, *shape)
    assert made.dtype == np.float32
    assert 0 <= made.min() < made.max() <= 1
    known = {image.tobytes() for image in images}
    assert sum(image.tobytes() in known for image in made) < 50
    assert sum(image.max() > 0.5 for image in made) > 400


@pytest.mark.skipif(not FASHION.exists(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_most_clothes_are_marked(novelty: Novelty) -> None:
    with gzip.open(FASHION) as file:
        pixels = np.frombuffer(file.read(16 + 2000 * 784), np.uint8, offset=16)
    assert fraction(novelty, pixels.reshape(-1, 28, 28).astype(np.float32) / 255) >= MIN_OF_OTHERS


def test_the_service_marks_the_same_images(novelty: Novelty, digits: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "novelty.npz"
    path.write_bytes(novelty.to_bytes())
    served = ServedNovelty.read(path, (28, 28))
    images = np.concatenate([letters(), sketches(), digits.x_test[:200].reshape(-1, 28, 28)])
    np.testing.assert_allclose(served_histograms(images), edge_histograms(images), atol=1e-6)
    expected = novelty.unlike(images)
    np.testing.assert_array_equal(served.unlike(images.reshape(len(images), -1)), expected)
    assert expected.any()
    assert not expected.all()


def test_histograms_have_the_direction_and_place_of_an_edge() -> None:
    image = np.zeros((1, 20, 15), np.float32)
    image[:, 4:8, :] = 1  # rows of the second of five cells: an edge from dark to light downwards, and one back
    found = edge_histograms(image).reshape(8, 5, 5)
    assert np.isclose(np.linalg.norm(found), 1)
    assert found[2, :2, 2].min() > 0.1  # downwards: rows 3 and 4
    assert found[6, 1:3, 2].min() > 0.1  # upwards: rows 7 and 8
    assert found[[0, 4], :, 2].max() < 1e-6


@pytest.mark.parametrize("change", [{"image_shape": None}, {"task": "regression"}, {"image_shape": (4, 196)}])
def test_other_data_has_no_detector(digits: Dataset, change: dict[str, object]) -> None:
    assert Novelty.fit(replace(digits, **change)) is None  # type: ignore[arg-type]


def test_too_few_images_have_no_detector(digits: Dataset) -> None:
    assert Novelty.fit(replace(digits, x_train=digits.x_train[:500], y_train=digits.y_train[:500])) is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"limits": np.ones(3)}, "shapes"),
        ({"means": np.zeros((2, 100))}, "shapes"),
        ({"means": np.zeros(())}, "shapes"),
        ({"limits": np.zeros(2)}, "positive"),
        ({"means": np.full((2, 200), np.nan)}, "finite"),
        ({"components": np.zeros((2, 65, 200))}, "64 components"),
        ({"hidden": np.zeros(200)}, "shapes"),
        ({"hidden": np.zeros((200, 7))}, "shapes"),
        ({"hidden": np.zeros((200, 2000)), "bias": np.zeros(2000), "output": np.zeros(2000)}, "a width of 1024"),
        ({"limit": np.full((), np.inf)}, "finite"),
        ({"limit": np.zeros(2)}, "shapes"),
        ({"hidden": None}, "cannot be read"),
    ],
)
def test_invalid_files_are_refused(tmp_path: Path, arrays: dict[str, NDArray[np.float64] | None], message: str) -> None:
    valid = {"means": np.zeros((2, 200)), "components": np.zeros((2, 3, 200)), "limits": np.ones(2)}
    valid |= {"hidden": np.zeros((200, 5)), "bias": np.zeros(5), "output": np.zeros(5), "limit": np.zeros(())}
    content = io.BytesIO()
    np.savez(content, **{name: array for name, array in (valid | arrays).items() if array is not None})  # type: ignore[arg-type]
    path = tmp_path / "novelty.npz"
    path.write_bytes(content.getvalue())
    with pytest.raises(SamplesError, match=message):
        ServedNovelty.read(path, (28, 28))
