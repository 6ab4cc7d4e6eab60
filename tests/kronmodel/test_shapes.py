import math
from typing import Any

import numpy as np
import pytest

from kronmodel import shapes


@pytest.mark.parametrize(
    ("width", "factors", "shape"),
    [
        (784, 2, (28, 28)),
        (10, 2, (2, 5)),
        (1, 2, (1, 1)),
        (2, 2, (1, 2)),
        (96, 2, (8, 12)),
        (4096, 3, (16, 16, 16)),
        (784, 3, (7, 8, 14)),
        (30, 4, (1, 2, 3, 5)),
    ],
)
def test_balanced_shape_is_the_most_balanced(width: int, factors: int, shape: tuple[int, ...]) -> None:
    assert shapes.balanced_shape(width, factors=factors) == shape


def test_two_proposed_factors_against_all_divisors() -> None:
    for width in range(4, 200):
        divisors = [size for size in range(2, width) if width % size == 0]
        if divisors:
            small, large = shapes.balanced_shape(width)
            assert small * large == width
            assert large - small == min(abs(width // size - size) for size in divisors)
        else:
            with pytest.raises(ValueError, match=rf"width of {width} is prime.*or padding \(pad=True\) to \("):
                shapes.balanced_shape(width)


@pytest.mark.parametrize("factors", [2, 3])
def test_padding_proposes_the_smallest_balanced_product_that_has_room(factors: int) -> None:
    for width in range(1, 300):
        shape = shapes.balanced_shape(width, factors=factors, pad=True)
        assert len(shape) == factors
        assert list(shape) == sorted(shape)
        assert shape[-1] <= 2 * shape[0]
        assert width <= math.prod(shape) <= 2 * width + 2
    assert shapes.balanced_shape(13, pad=True) == (3, 5)
    assert shapes.balanced_shape(784, pad=True) == (28, 28)


@pytest.mark.parametrize("width", [0, -4, 1 << 30])
def test_impossible_widths(width: int) -> None:
    for pad in (False, True):
        with pytest.raises(ValueError, match=f"a whole number between 1 and 16,777,216, got {width}"):
            shapes.balanced_shape(width, pad=pad)


def test_widths_and_numbers_of_factors_may_be_of_numpy() -> None:
    shape = shapes.balanced_shape(np.int64(768), factors=np.int8(3))  # type: ignore[arg-type]
    assert (shapes.balanced_shape(np.uint16(768)), shape) == ((24, 32), (8, 8, 12))  # type: ignore[arg-type]
    assert {type(size) for size in shape} == {int}
    image: Any = np.array([3, 32, 30])
    assert shapes.image_of(image) == (3, 32, 30)
    for width in (True, np.bool_(True), 784.0, np.float32(784), "784", None):
        with pytest.raises(ValueError, match="a width must be a whole number between 1 and"):
            shapes.balanced_shape(width)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="factors must be between 2 and 12, got True"):
        shapes.balanced_shape(784, factors=True)


def test_errors_about_prime_widths_carry_the_shape_that_padding_would_choose() -> None:
    for width, factors, padded in ((13, 2, (3, 5)), (101, 2, (8, 13)), (13, 3, (2, 2, 4))):
        with pytest.raises(shapes.PrimeWidthError) as caught:
            shapes.balanced_shape(width, factors=factors)
        assert (caught.value.width, caught.value.padded) == (width, padded)
        assert padded == shapes.balanced_shape(width, factors=factors, pad=True)


def test_ranks_are_whole_numbers_and_of_linear_layers_at_most_the_useful_maximum() -> None:
    rank: Any = np.int32(7)
    assert shapes.check_rank(rank) == 7
    assert type(shapes.check_rank(rank)) is int
    assert shapes.check_linear_rank(6, (3, 7), (2, 5)) == 6
    for bad in (0, -1, True, 2.0, 1 << 17):
        with pytest.raises(ValueError, match=f"rank must be a whole number between 1 and 65,536, got {bad}"):
            shapes.check_rank(bad)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match=r"rank must be between 1 and 6 for \(3, 7\) -> \(2, 5\), got 7"):
        shapes.check_linear_rank(rank, (3, 7), (2, 5))


def test_impossible_numbers_of_factors() -> None:
    with pytest.raises(ValueError, match="factors must be between 2 and 12, got 1"):
        shapes.balanced_shape(784, factors=1)


def test_features_may_only_be_fewer_with_padding() -> None:
    assert shapes.check_features("in_features", None, (3, 5), pad=False) == 15
    assert shapes.check_features("in_features", 13, (3, 5), pad=True) == 13
    with pytest.raises(ValueError, match=r"in_features must be 3 \* 5 = 15, got 13; or set pad=True"):
        shapes.check_features("in_features", 13, (3, 5), pad=False)
    for features in (0, 16):
        with pytest.raises(ValueError, match=f"between 1 and 15, the product of .*, got {features}"):
            shapes.check_features("in_features", features, (3, 5), pad=True)


def test_shapes_of_a_layer_have_equally_many_factors() -> None:
    assert shapes.check_shapes([3, 7], (2, 5)) == ((3, 7), (2, 5))
    with pytest.raises(ValueError, match=r"equally many factors, got \(3, 7\) and \(2, 5, 1\)"):
        shapes.check_shapes((3, 7), (2, 5, 1))


def test_parse_shapes() -> None:
    assert shapes.parse_shapes("28x28, 16X32") == ((28, 28), (16, 32))
    assert shapes.parse_shapes("16x16x16") == ((16, 16, 16),)


@pytest.mark.parametrize("text", ["", "28", "28x", "x28", "28x28,", "-1x4", "axb", "२x2"])
def test_parse_shapes_says_what_it_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected factor sizes such as 28x28,28x28"):
        shapes.parse_shapes(text)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((0, 3), "at least 1"),
        ((3,), "2 to 12 whole numbers"),
        ((2.0, 3), "2 to 12 whole numbers"),
        ((1 << 20, 1 << 20), "at most"),
    ],
)
def test_check_shape(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"in_shape must .*{message}"):
        shapes.check_shape("in_shape", shape)


def test_macs_of_the_square_case_are_twice_n_to_the_three_halves() -> None:
    for size in (4, 28, 64):
        assert shapes.dual_macs((size, size), (size, size), "left") == 2 * round((size * size) ** 1.5)
        assert shapes.dual_macs((size,) * 3, (size,) * 3, "right") == 3 * size**4


def test_linear_macs_takes_the_cheaper_order() -> None:
    assert shapes.linear_macs((3, 7), (2, 5)) == ("left", 2 * 3 * 7 + 2 * 7 * 5)
    assert shapes.linear_macs((3, 7), (11, 1)) == ("right", 3 * 7 * 1 + 11 * 3 * 1)


def test_max_rank_is_that_of_the_rearranged_matrix() -> None:
    assert shapes.max_rank((3, 7), (2, 5)) == 6 == min(3 * 2, 7 * 5)
    assert shapes.max_rank((2, 5, 3), (4, 3, 6)) == (2 * 4) * (5 * 3)  # all but the largest, 3 * 6


def test_an_image_has_its_own_shape_and_one_with_channels_balanced_factors() -> None:
    assert shapes.input_shape(42, (14, 3), pad=False) == (14, 3)
    assert shapes.input_shape(3072, (3, 32, 32), pad=False) == (48, 64)


@pytest.mark.parametrize(("width", "pair"), [(1, (1, 1)), (2, (1, 2)), (3, (1, 3)), (10, (2, 5)), (26, (2, 13))])
def test_widths_with_factors_are_left_alone(width: int, pair: tuple[int, int]) -> None:
    assert shapes.input_shape(width, None, pad=False) == pair


@pytest.mark.parametrize(("width", "pair"), [(13, (3, 5)), (5, (2, 3)), (26, (4, 7)), (10, (3, 4)), (101, (8, 13))])
def test_padding_goes_to_the_next_width_that_has_balanced_factors(width: int, pair: tuple[int, int]) -> None:
    assert shapes.input_shape(width, None, pad=True) == pair


def test_a_prime_width_is_never_padded_silently() -> None:
    with pytest.raises(ValueError, match=r"13 features have no factors but 1 and 13.*pad=True fills .* \(3, 5\)"):
        shapes.input_shape(13, None, pad=False)


@pytest.mark.parametrize(("width", "pair"), [(1, (1, 1)), (7, (1, 7)), (10, (2, 5)), (11, (1, 11)), (1000, (25, 40))])
def test_outputs_are_never_padded(width: int, pair: tuple[int, int]) -> None:
    assert shapes.output_shape(width) == pair


def test_channels_height_and_width_of_images() -> None:
    assert shapes.image_of((28, 26)) == (1, 28, 26)
    assert shapes.image_of([3, 32, 32]) == (3, 32, 32)
    with pytest.raises(ValueError, match=r"images of shape \(height, width\) .*, got \(13,\)"):
        shapes.image_of((13,))
    with pytest.raises(ValueError, match="got data that are no images"):
        shapes.image_of(None)
