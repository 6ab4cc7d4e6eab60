import math

import pytest

from kronmodel import shapes


@pytest.mark.parametrize(("width", "pair"), [(784, (28, 28)), (10, (2, 5)), (1, (1, 1)), (2, (1, 2)), (96, (8, 12))])
def test_factor_pair_is_the_most_balanced(width: int, pair: tuple[int, int]) -> None:
    assert shapes.factor_pair(width) == pair


def test_factor_pair_multiplies_to_the_width_or_says_that_it_is_prime() -> None:
    for width in range(4, 200):
        divisors = [size for size in range(2, width) if width % size == 0]
        if divisors:
            small, large = shapes.factor_pair(width)
            assert small * large == width
            assert large - small == min(abs(width // size - size) for size in divisors)
        else:
            with pytest.raises(ValueError, match=f"width of {width} is prime"):
                shapes.factor_pair(width)


@pytest.mark.parametrize("width", [0, -4])
def test_factor_pair_of_nothing(width: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, got {width}"):
        shapes.factor_pair(width)


def test_parse_shapes() -> None:
    assert shapes.parse_shapes("28x28, 16X32") == ((28, 28), (16, 32))


@pytest.mark.parametrize("text", ["", "28", "28x", "x28", "28x28x2", "28x28,", "-1x4", "axb", "२x2"])
def test_parse_shapes_says_what_it_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected factor sizes such as 28x28,28x28"):
        shapes.parse_shapes(text)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((0, 3), "at least 1"),
        ((3,), "two whole numbers"),
        ((2.0, 3), "two whole numbers"),
        ((1 << 20, 1 << 20), "at most"),
    ],
)
def test_check_shape(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"in_shape must .*{message}"):
        shapes.check_shape("in_shape", shape)


def test_macs_of_the_square_case_are_twice_n_to_the_three_halves() -> None:
    for size in (4, 28, 64):
        assert shapes.dual_macs((size, size), (size, size), "left") == 2 * round((size * size) ** 1.5)


def test_linear_macs_takes_the_cheaper_order() -> None:
    assert shapes.linear_macs((3, 7), (2, 5)) == ("left", 2 * 3 * 7 + 2 * 7 * 5)
    assert shapes.linear_macs((3, 7), (11, 1)) == ("right", 3 * 7 * 1 + 11 * 3 * 1)


def test_max_rank_is_that_of_the_rearranged_matrix() -> None:
    assert shapes.max_rank((3, 7), (2, 5)) == 6 == min(math.prod((3, 2)), math.prod((7, 5)))
