import numpy as np
import pytest

from kronmodel.data.dataset import Dataset
from kronmodel.widths import input_shape, output_shape


def table(width: int, image: tuple[int, ...] | None = None) -> Dataset:
    x, y = np.zeros((1, width), np.float32), np.zeros(1, np.int64)
    return Dataset(
        name="t", x_train=x, y_train=y, x_test=x, y_test=y, labels=("a", "b"), image_shape=image, preprocessing="",
        origin="",
    )  # fmt: skip


def test_an_image_has_its_own_shape_and_one_with_channels_balanced_factors() -> None:
    assert input_shape(table(42, (14, 3)), pad=False) == (14, 3)
    assert input_shape(table(3072, (3, 32, 32)), pad=False) == (48, 64)


@pytest.mark.parametrize(("width", "pair"), [(1, (1, 1)), (2, (1, 2)), (3, (1, 3)), (10, (2, 5)), (26, (2, 13))])
def test_widths_with_factors_are_left_alone(width: int, pair: tuple[int, int]) -> None:
    assert input_shape(table(width), pad=False) == pair


@pytest.mark.parametrize(("width", "pair"), [(13, (3, 5)), (5, (2, 3)), (26, (4, 7)), (10, (3, 4)), (101, (8, 13))])
def test_padding_goes_to_the_next_width_that_has_balanced_factors(width: int, pair: tuple[int, int]) -> None:
    assert input_shape(table(width), pad=True) == pair


def test_a_prime_width_is_never_padded_silently() -> None:
    with pytest.raises(ValueError, match=r"13 features have no factors but 1 and 13.*--pad fills each row up .* 3x5"):
        input_shape(table(13), pad=False)


@pytest.mark.parametrize(("width", "pair"), [(1, (1, 1)), (7, (1, 7)), (10, (2, 5)), (11, (1, 11)), (1000, (25, 40))])
def test_outputs_are_never_padded(width: int, pair: tuple[int, int]) -> None:
    assert output_shape(width) == pair
