"""Preprocessing of drawings in the browser, compared with numpy."""

import numpy as np
import numpy.typing as npt
import pytest
from playwright.sync_api import Page

from tests.browser.conftest import Visitor

Image = npt.NDArray[np.float64]

CENTRE = """async ([values, width, height, rows, columns]) => {
    const { centre } = await import("/static/js/views/try/preprocessing.js");
    const image = centre({ values: Float32Array.from(values), width, height }, rows, columns);
    return image && Array.from(image);
}"""


@pytest.fixture
def page(visitor: Visitor) -> Page:
    return visitor().open()


def in_browser(page: Page, drawing: Image, rows: int = 28, columns: int = 28) -> Image | None:
    height, width = drawing.shape
    values = page.evaluate(CENTRE, [drawing.ravel().tolist(), width, height, rows, columns])
    return None if values is None else np.array(values).reshape(rows, columns)


def crop(image: Image) -> Image:
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def area_average(image: Image, rows: int, columns: int) -> Image:
    """Repeat each pixel until the sizes divide evenly, then average each block."""
    height, width = image.shape
    fine = np.repeat(np.repeat(image, rows, axis=0), columns, axis=1)
    mean: Image = fine.reshape(rows, height, columns, width).mean(axis=(1, 3))
    return mean


def centre(image: Image) -> tuple[float, float]:
    rows, columns = np.indices(image.shape)
    return float((image * rows).sum() / image.sum()), float((image * columns).sum() / image.sum())


def stroke(height: int, width: int, side: int = 150) -> Image:
    """Draw a filled slanted shape with soft edges, off the centre."""
    rows, columns = np.indices((height, width))
    shape = np.clip(1.2 - np.abs(columns / max(width - 1, 1) - (rows / max(height - 1, 1)) ** 2), 0, 1)
    canvas = np.zeros((side, side))
    canvas[7 : 7 + height, 11 : 11 + width] = shape
    return canvas


@pytest.mark.parametrize(("height", "width"), [(100, 60), (40, 120), (97, 13), (20, 20), (7, 5), (1, 1), (113, 3)])
def test_a_drawing_is_scaled_and_centred(page: Page, height: int, width: int) -> None:
    drawing = stroke(height, width)
    image = in_browser(page, drawing)
    assert image is not None
    ink = crop(drawing)
    scale = 20 / max(ink.shape)
    rows, columns = (max(1, round(size * scale)) for size in ink.shape)
    expected = area_average(ink, rows, columns)
    np.testing.assert_allclose(crop(image), crop(expected), atol=1e-6)
    assert max(crop(image).shape) == 20
    assert image.min() >= 0
    assert image.max() <= 1 + 1e-6
    # MNIST's own digits: the centre of mass on pixel 14 (counted from 0), to within half a pixel.
    np.testing.assert_allclose(centre(image), (14, 14), atol=0.5 + 1e-5)


def test_scaling_keeps_the_mean(page: Page) -> None:
    drawing = np.random.default_rng(0).uniform(0, 1, (61, 43))
    drawing[0, 0] = drawing[-1, -1] = 1  # so that the box is the whole drawing
    image = in_browser(page, np.pad(drawing, 9))
    assert image is not None
    assert crop(image).shape == (20, 14)
    assert crop(image).mean() == pytest.approx(drawing.mean(), abs=1e-6)


def test_an_asymmetric_drawing_is_not_cut_off(page: Page) -> None:
    drawing = np.zeros((100, 100))
    drawing[:, :4] = 0.01
    drawing[:, 95:] = 1
    image = in_browser(page, drawing)
    assert image is not None
    assert crop(image).shape == (20, 20)
    assert np.flatnonzero(image.any(axis=0))[0] == 0  # moved to the left edge, and not cut off


def test_an_empty_drawing_is_null(page: Page) -> None:
    assert in_browser(page, np.zeros((30, 40))) is None


def test_other_sizes_keep_the_margin(page: Page) -> None:
    image = in_browser(page, stroke(100, 60), 56, 56)
    assert image is not None
    assert max(crop(image).shape) == 40
    np.testing.assert_allclose(centre(image), (28, 28), atol=0.5 + 1e-5)
