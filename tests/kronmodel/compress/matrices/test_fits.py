"""Fits of one layer, compared with float64 oracles: singular values, direct least squares, brute force."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from kronmodel.compress.matrices.candidates import MatrixLayer
from kronmodel.compress.matrices.fitting import LayerData, curve_of, fit
from kronmodel.compress.matrices.kronecker import fit_kronecker
from kronmodel.compress.matrices.low_rank import solve_low_rank
from kronmodel.compress.matrices.moments import Array, Moments
from kronmodel.compress.matrices.structures import Structure, dense, kronecker, low_rank, monarch

RNG = np.random.default_rng(0)
N, M = 30, 36  # 6 x 5 inputs, 4 x 9 outputs
MIX = RNG.normal(size=(N, N)) * np.geomspace(1, 0.02, N)


def inputs(count: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=(count, N)) @ MIX.T + 1


def layer(*, bias: bool = True) -> MatrixLayer:
    rng = np.random.default_rng(1)
    return MatrixLayer("layer", rng.normal(size=(M, N)), rng.normal(size=M) if bias else None)


def moments(one: MatrixLayer, x: Array, y: Array | None = None) -> Moments:
    found = Moments(N, M)
    bias = 0 if one.bias is None else one.bias
    found.add(x, x @ one.weight.T + bias if y is None else y)
    return found


STRUCTURES = [low_rank(N, M, 4), kronecker((6, 5), (4, 9), 3), kronecker((3, 2, 5), (2, 2, 9), 4),
              monarch((6, 5), (4, 9), 2), monarch((5, 6), (9, 4), 1)]  # fmt: skip


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_factors_bias_and_errors_are_those_of_the_matrix_that_is_applied(structure: Structure) -> None:
    one = layer()
    x, held = inputs(300, 2), inputs(200, 3)
    assert one.bias is not None
    y = held @ one.weight.T + one.bias
    fitted = fit(one, structure, LayerData(moments(one, x), moments(one, held)))
    assert tuple(factor.shape for factor in fitted.factors) == structure.factor_shapes
    assert sum(factor.size for factor in fitted.factors) == structure.weights
    assert fitted.candidate.bytes == 4 * (structure.weights + M)
    assert fitted.bias is not None
    applied = fitted.apply(held)
    np.testing.assert_allclose(applied, held @ fitted.matrix().T + fitted.bias)
    measured = math.sqrt(((applied - y) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())
    assert fitted.candidate.output_error == pytest.approx(measured, rel=0.02)
    weight_error = np.linalg.norm(fitted.matrix() - one.weight) / np.linalg.norm(one.weight)
    assert fitted.candidate.weight_error == pytest.approx(weight_error)


@pytest.mark.parametrize("rank", [1, 5, 29])
def test_low_rank_without_data_has_the_error_of_the_singular_values(rank: int) -> None:
    one = layer()
    singular = np.linalg.svd(one.weight, compute_uv=False)
    fitted = fit(one, low_rank(N, M, rank), LayerData.of_weights_alone(one))
    tail = math.sqrt((singular[rank:] ** 2).sum() / (singular**2).sum())
    assert fitted.candidate.weight_error == pytest.approx(tail, abs=1e-7)
    assert fitted.candidate.output_error == pytest.approx(tail, rel=1e-3)
    assert fitted.bias is one.bias


@pytest.mark.parametrize(("wide", "tall"), [(N, M), (M, N)])
def test_whitened_low_rank_is_the_optimum_on_the_data(wide: int, tall: int) -> None:
    """Against the truncated SVD of the outputs themselves: no matrix of that rank comes nearer to them."""
    rng = np.random.default_rng(4)
    weight, x = rng.normal(size=(tall, wide)), rng.normal(size=(500, wide)) * np.geomspace(1, 0.01, wide)
    found = Moments(wide, tall)
    found.add(x, x @ weight.T)
    system = found.system(weight, bias=False)
    solution = solve_low_rank(system)
    singular = np.linalg.svd(x @ weight.T, compute_uv=False)
    u, s, v = np.linalg.svd(weight, full_matrices=False)
    for rank in (2, 7):
        best = (singular[rank:] ** 2).sum() / len(x)
        assert solution.square_error(rank) == pytest.approx(best, rel=1e-3)
        left, right = solution.factors(rank)
        assert system.square_error(left @ right) == pytest.approx(best, rel=1e-3)
        plain = (u[:, :rank] * s[:rank]) @ v[:rank]
        assert system.square_error(left @ right) < 0.8 * system.square_error(plain)


def test_the_dense_solution_is_least_squares_on_changed_inputs() -> None:
    one, x = layer(), inputs(400, 5)
    y = np.tanh(x) @ one.weight.T
    found = moments(one, x, y)
    system = found.system(one.weight, bias=True)
    centred, targets = x - x.mean(0), y - y.mean(0)
    best = np.linalg.lstsq(centred, targets, rcond=None)[0].T
    residual = ((targets - centred @ best.T) ** 2).sum() / len(x)
    assert system.square_error(system.target) == pytest.approx(residual, rel=1e-2)
    assert system.energy == pytest.approx((targets**2).sum() / len(x))
    np.testing.assert_allclose(system.bias(best), y.mean(0) - best @ x.mean(0))


def test_a_kronecker_sum_is_recovered_and_its_error_never_rises() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(2, 4, 6)), rng.normal(size=(2, 9, 5))
    one = replace(layer(), weight=np.kron(a[0], b[0]) + np.kron(a[1], b[1]))
    system = moments(one, inputs(400, 7)).system(one.weight, bias=True)
    _, error = fit_kronecker(system, kronecker((6, 5), (4, 9), 2), sweeps=50)
    assert error < 1e-6 * system.energy
    errors = [fit_kronecker(system, kronecker((6, 5), (4, 9), 1), sweeps=sweeps)[1] for sweeps in (1, 2, 4, 8, 16)]
    assert all(after <= before * (1 + 1e-9) for before, after in itertools.pairwise(errors))


def test_a_kronecker_step_is_least_squares_of_the_samples() -> None:
    """The last step of a sweep solves for the second factor: against lstsq on the samples themselves."""
    one, x = layer(bias=False), inputs(500, 8)
    system = moments(one, x).system(one.weight, bias=False)
    (a, b), error = fit_kronecker(system, kronecker((6, 5), (4, 9), 1), sweeps=1)
    inner = np.einsum("ij,sjp->sip", a[0], x.reshape(-1, 6, 5)).reshape(-1, 5)  # rows (sample, i)
    targets = (x @ one.weight.T).reshape(-1, 9)
    best = np.linalg.lstsq(inner, targets, rcond=None)[0].T
    np.testing.assert_allclose(b[0], best, rtol=1e-4, atol=1e-5)
    assert error == pytest.approx(((targets - inner @ best.T) ** 2).sum() / len(x), rel=1e-4)


def test_the_curve_is_honest_and_no_structure_is_larger_than_the_layer() -> None:
    one = layer()
    data = LayerData(moments(one, inputs(400, 9)), moments(one, inputs(300, 10)))
    curve = curve_of(one, data)
    assert curve[0].structure == dense(N, M)
    assert {each.structure.kind for each in curve} == {"dense", "low-rank", "kronecker", "monarch"}
    assert all(each.bytes < curve[0].bytes for each in curve[1:])
    for each in (curve[1], *[one for one in curve if one.structure.kind == "monarch"][:1]):
        fitted = fit(one, each.structure, data)
        assert 0.5 * each.output_error < fitted.candidate.output_error < 1.02 * each.output_error
        assert fitted.candidate.weight_error == pytest.approx(each.weight_error, rel=0.2)
    only = curve_of(replace(one, structures=("dense", "low-rank")), data)
    assert {each.structure.kind for each in only} == {"dense", "low-rank"}


def test_moments_add_up_and_refuse_what_does_not_fit() -> None:
    one, x = layer(), inputs(50, 11)
    whole, parts = moments(one, x), moments(one, x[:20]) + moments(one, x[20:])
    np.testing.assert_allclose(parts.xx, whole.xx)
    assert parts.count == whole.count == 50
    with pytest.raises(ValueError, match=r"expected inputs \(rows, 30\) and targets \(rows, 36\), got \(5, 29\)"):
        whole.add(x[:5, 1:], np.zeros((5, M)))
    with pytest.raises(ValueError, match="not finite"):
        whole.add(x[:5] * np.inf, np.zeros((5, M)))
    with pytest.raises(ValueError, match="at least one sample"):
        Moments(N, M).system(one.weight, bias=True)
    with pytest.raises(ValueError, match=r"low-rank 2 doesn't have the layer's shape \(36, 30\)"):
        fit(one, low_rank(M, N, 2), LayerData.of_weights_alone(one))
