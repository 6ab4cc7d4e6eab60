"""Fake quantisation: levels, step sizes and gradients, compared with float64 oracles."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from kronmodel.quantization.fake_quantizer import (
    Grid,
    fake_quantize,
    fake_quantize_features,
    initial_steps,
    levels,
    quantized_steps,
)

LENGTHS, BITS = (5, 3, 7), (4, 2, 8)


def grid() -> Grid:
    rows = torch.arange(3).repeat_interleave(torch.tensor(LENGTHS))
    low = torch.tensor([-float(1 << (bits - 1)) for bits in BITS])[rows]
    high = torch.tensor([float((1 << (bits - 1)) - 1) for bits in BITS])[rows]
    scale = torch.tensor(
        [(length * ((1 << (bits - 1)) - 1)) ** -0.5 for length, bits in zip(LENGTHS, BITS, strict=True)]
    )
    return Grid(rows, low, high, scale)


def oracle(values: np.ndarray, steps: np.ndarray, upstream: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute result and gradients value by value, by the formulas of Esser et al. (arXiv 1902.08153), in float64."""
    result, by_value, by_step = np.zeros_like(values), np.zeros_like(values), np.zeros(len(steps))
    at = 0
    for row, (length, bits) in enumerate(zip(LENGTHS, BITS, strict=True)):
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        for index in range(at, at + length):
            ratio = values[index] / steps[row]
            if ratio < low or ratio > high:
                level, slope, passed = (low if ratio < low else high), (low if ratio < low else high), 0.0
            else:
                level = round(ratio)
                slope, passed = level - ratio, 1.0
            result[index] = level * steps[row]
            by_value[index] = passed * upstream[index]
            by_step[row] += slope * upstream[index] / (length * high) ** 0.5
        at += length
    return result, by_value, by_step * steps  # of the logarithm of the step size


def test_values_and_gradients_are_the_formulas() -> None:
    torch.manual_seed(0)
    values = torch.randn(sum(LENGTHS), requires_grad=True)
    with torch.no_grad():
        values[0], values[5], values[9] = 9.0, -9.0, 3.0  # beyond the range on both sides
    log_steps = torch.tensor([0.25, 0.5, 0.03125]).log().requires_grad_()
    upstream = torch.randn(sum(LENGTHS))
    result = fake_quantize(values, log_steps, grid())
    (result * upstream).sum().backward()
    expected = oracle(values.detach().double().numpy(), np.array([0.25, 0.5, 0.03125]), upstream.double().numpy())
    assert values.grad is not None
    assert log_steps.grad is not None
    assert (values.grad == 0).any()
    for got, want in zip((result.detach(), values.grad, log_steps.grad), expected, strict=True):
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-5, atol=1e-6)


def test_a_step_size_moves_towards_a_smaller_error() -> None:
    torch.manual_seed(1)
    values = torch.randn(sum(LENGTHS))
    log_steps = torch.full((3,), 0.9).log().requires_grad_()
    optimizer = torch.optim.SGD([log_steps], lr=0.05)
    errors = []
    for _ in range(200):
        optimizer.zero_grad()
        error = (fake_quantize(values, log_steps, grid()) - values).square().sum()
        error.backward()
        optimizer.step()
        errors.append(float(error.detach()))
    assert min(errors[-10:]) < 0.7 * errors[0]


@pytest.mark.parametrize("shape", [(6,), (3, 2, 4)])
def test_features_have_one_step_size(shape: tuple[int, ...]) -> None:
    torch.manual_seed(2)
    features = (3 * torch.randn(shape)).requires_grad_()
    log_step = torch.tensor(0.015625).log().requires_grad_()
    upstream = torch.randn(shape)
    result = fake_quantize_features(features, log_step)
    (result * upstream).sum().backward()
    ratio = features.detach().double() / 0.015625
    level = ratio.round().clamp(-128, 127)
    inside = (ratio >= -128) & (ratio <= 127)
    assert bool(inside.any())
    assert not bool(inside.all())
    assert features.grad is not None
    assert log_step.grad is not None
    torch.testing.assert_close(result.detach().double(), level * 0.015625)
    torch.testing.assert_close(features.grad, upstream * inside)
    slope = (torch.where(inside, level - ratio, level) * upstream).sum() * 0.015625 / (features.numel() * 127) ** 0.5
    torch.testing.assert_close(log_step.grad.double(), slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_every_level_is_reached_and_no_other(bits: int) -> None:
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    values = torch.linspace(3.0 * low, 3.0 * high, 4001)
    found = levels(values, torch.tensor(1.0), torch.tensor(float(low)), torch.tensor(float(high)))
    assert sorted(set(found.tolist())) == list(range(low, high + 1))


def test_halves_are_rounded_to_even_as_in_onnx() -> None:
    values = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, -2.5])
    assert levels(values, torch.tensor(1.0), torch.tensor(-8.0), torch.tensor(7.0)).tolist() == [0, 2, 2, 0, -2, -2]


def test_step_sizes_are_float16_and_never_subnormal_or_infinite() -> None:
    steps = quantized_steps(torch.tensor([-1000.0, -3.3, 0.1, 1000.0]))
    assert torch.equal(steps, steps.half().float())
    assert steps.min() == 2.0**-14
    assert torch.isfinite(steps).all()


def test_the_first_step_size_is_the_best_of_many() -> None:
    torch.manual_seed(3)
    values = torch.randn(3, 50) * torch.tensor([[0.01], [1.0], [40.0]])

    def error(row: Tensor, step: float, low: int, high: int) -> float:
        return float(((row / step).round().clamp(low, high) * step - row).square().mean())

    for low, high in ((-2, 1), (-8, 7), (-128, 127)):
        for row, step in zip(values, initial_steps(values, low, high).tolist(), strict=True):
            largest = float(row.abs().max()) / high
            assert error(row, step, low, high) <= 1.01 * min(
                error(row, largest * number / 40, low, high) for number in range(1, 41)
            )


def test_a_row_of_zeros_has_a_step_size_to_begin_with() -> None:
    found = initial_steps(torch.tensor([[0.0, 0.0], [0.0, 1.0]]), -128, 127)
    assert found[0] == 1 / 64
    assert found[1] > 0


def test_all_rows_of_all_bits_are_rounded_by_their_own_levels() -> None:
    values = torch.full((sum(LENGTHS),), 100.0)
    result = fake_quantize(values, torch.zeros(3), grid())
    expected = itertools.chain(
        *([float((1 << (bits - 1)) - 1)] * length for length, bits in zip(LENGTHS, BITS, strict=True))
    )
    assert result.tolist() == [min(each, 100.0) for each in expected]
