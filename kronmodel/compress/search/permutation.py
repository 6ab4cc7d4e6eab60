"""Permutation of hidden units: an order in which the weights of two neighbouring layers are nearer to structured ones.

The units between two layers can stand in any order if only activations, which treat all alike, lie between them: the
rows of the first weight and the columns of the second are permuted alike, and no operator is added. Low rank has the
same error in any order, Kronecker products and Monarch matrices have not.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kronmodel.compress.matrices.candidates import Candidate, Fitted, MatrixLayer, unchanged
from kronmodel.compress.matrices.fitting import LayerData, fit
from kronmodel.compress.matrices.moments import Array, Moments
from kronmodel.compress.search.matrix_network import MatrixNetwork

__all__ = ["STRUCTURED", "Order", "find_orders", "permuted_data", "permuted_dense", "permuted_layer", "with_constant"]

Order = NDArray[np.intp]
"""Units of a layer in their new order."""

EXACT = 2e-3  # change of the network's outputs up to which a permuted network counts as the same
ROUNDS = 3  # of fitting and ordering
SWEEPS, FINAL_SWEEPS = 4, 15  # of a fit in between, and of those by which the orders are compared
SWAP_ROUNDS = 60
MOST_UNITS = 2048  # the costs of all orders take the square of it in memory
STRUCTURED = ("kronecker", "monarch")


def find_orders(network: MatrixNetwork, choice: Sequence[Candidate]) -> dict[int, Order]:
    """Find orders of the units behind layers, for which the chosen structures have less error.

    Args:
        network: the network, with its original layers.
        choice: structure of each layer.

    Returns:
        The order of the outputs of each layer whose units may be permuted, by the layer's index.
    """
    orders: dict[int, Order] = {}
    for first in range(len(network.layers) - 1):
        pair = choice[first : first + 2]
        if any(each.structure.kind in STRUCTURED for each in pair) and _is_chain(network, first):
            orders[first] = _order(network, first, pair, orders)
    return orders


def permuted_layer(layer: MatrixLayer, index: int, orders: Mapping[int, Order]) -> MatrixLayer:
    """Return a layer as a matrix of permuted inputs and outputs."""
    if index not in orders and index - 1 not in orders:
        return layer
    weight, bias = layer.weight, layer.bias
    if index - 1 in orders:
        weight = weight[:, orders[index - 1]]
    if index in orders:
        weight, bias = weight[orders[index]], None if bias is None else bias[orders[index]]
    return replace(layer, weight=weight, bias=bias)


def permuted_data(data: LayerData, outputs: Order | None = None, inputs: Order | None = None) -> LayerData:
    """Return the moments of a layer with permuted outputs or inputs."""
    held_out = data.held_out
    return LayerData(
        _permuted(data.fit, outputs, inputs), None if held_out is None else _permuted(held_out, outputs, inputs)
    )


def permuted_dense(layer: MatrixLayer, index: int, orders: Mapping[int, Order]) -> Fitted:
    """Return the replacement that permutes a layer and changes nothing else."""
    permuted = permuted_layer(layer, index, orders)
    return with_constant(
        Fitted(candidate=unchanged(layer), factors=(permuted.weight,), bias=permuted.bias), layer, orders.get(index)
    )


def with_constant(fitted: Fitted, layer: MatrixLayer, order: Order | None) -> Fitted:
    """Permute the constant that is added to a layer's outputs by changing the bias of its replacement."""
    if order is None or layer.constant is None or fitted.bias is None:
        return fitted
    return replace(fitted, bias=fitted.bias + layer.constant[order] - layer.constant)


def _permuted(moments: Moments, outputs: Order | None, inputs: Order | None) -> Moments:
    new = copy.copy(moments)
    if outputs is not None:
        new.y = new.y[outputs]
        new.yx = None if new.yx is None else new.yx[outputs]
    if inputs is not None:
        new.x = new.x[inputs]
        new.xx = new.xx[inputs] if new.diagonal else new.xx[np.ix_(inputs, inputs)]
        new.yx = None if new.yx is None else new.yx[:, inputs]
    return new


def _is_chain(network: MatrixNetwork, first: int) -> bool:
    """Tell by a trial whether permuting the units between two layers leaves the network's outputs as they are."""
    layers = network.layers[first : first + 2]
    units = layers[0].out_features
    if units != layers[1].in_features or not 2 < units <= MOST_UNITS or not all(each.is_refittable for each in layers):
        return False
    if layers[0].kernel != 1 or layers[1].kernel != 1:
        return False
    orders = {first: np.random.default_rng(0).permutation(units)}
    for index, layer in zip((first, first + 1), layers, strict=True):
        network.replace(index, permuted_dense(layer, index, orders))
    error = network.output_error()
    for index in (first, first + 1):
        network.replace(index, None)
    return error is not None and error < EXACT


def _order(network: MatrixNetwork, first: int, pair: Sequence[Candidate], orders: Mapping[int, Order]) -> Order:
    """Fit and order in turns from several starts; return the order in which the fitted matrices are nearest.

    Args:
        network: the network.
        first: index of the layer of which the outputs are ordered.
        pair: structures of the layer and of the next one.
        orders: orders of the layers before.
    """
    layers = [permuted_layer(network.layers[index], index, orders) for index in (first, first + 1)]
    data = [network.data_of(index) or LayerData.of_weights_alone(network.layers[index]) for index in (first, first + 1)]
    data[0] = permuted_data(data[0], inputs=orders.get(first - 1))
    structured = [each.structure.kind in STRUCTURED for each in pair]
    rows = layers[0].weight if structured[0] else layers[1].weight.T
    main = np.linalg.svd(rows - rows.mean(0), full_matrices=False)[0][:, 0]  # similar units become neighbours
    best: tuple[float, Order] = (np.inf, np.arange(len(rows)))
    places = [place for place in (0, 1) if structured[place]]
    for start in (np.arange(len(rows)), np.argsort(main, kind="stable")):
        order = start
        for _ in range(ROUNDS):
            fits = {place: _fit(layers, data, pair, {place: order}, SWEEPS).matrix() for place in places}
            costs = [_costs(layers[place], data[place], fits[place], is_input=place == 1) for place in places]
            order = _assigned(np.sum(costs, axis=0), order)
        final = [_fit(layers, data, pair, {place: order}, FINAL_SWEEPS).candidate.output_error for place in places]
        best = min(best, (sum(error**2 for error in final), order), key=lambda each: each[0])
    return best[1]


def _fit(
    layers: Sequence[MatrixLayer],
    data: Sequence[LayerData],
    pair: Sequence[Candidate],
    at: Mapping[int, Order],
    sweeps: int,
) -> Fitted:
    """Fit the structure of one layer of a pair, 0 or 1, with the units between them in an order."""
    ((place, order),) = at.items()
    moved = permuted_data(data[place], inputs=order) if place else permuted_data(data[place], outputs=order)
    return fit(permuted_layer(layers[place], place, {0: order}), pair[place].structure, moved, sweeps=sweeps)


def _costs(layer: MatrixLayer, data: LayerData, matrix: Array, *, is_input: bool) -> Array:
    """Compute the squared error of a layer's outputs, relative to them, that each unit causes at each place.

    Args:
        layer: the layer.
        data: its moments.
        matrix: replacement of its weight, with the units by place.
        is_input: whether the units are the layer's inputs, not its outputs.

    Returns:
        The costs ``(unit, place)``.
    """
    system = data.fit.system(layer.weight, bias=layer.bias is not None)
    if is_input:  # as if the units were uncorrelated
        variance = system.gram if system.is_diagonal else np.diag(system.gram)
        cross = system.target.T @ matrix
        squares = np.square(system.target).sum(0)[:, None] + np.square(matrix).sum(0) - 2 * cross
        return np.asarray(variance[:, None] * squares / max(system.energy, 1e-300))
    weighted = system.weighted(matrix)
    own = np.einsum("ij,ij->i", system.cross, system.target)[:, None]
    added = own + np.einsum("ij,ij->i", weighted, matrix) - 2 * system.target @ weighted.T
    return np.asarray(added / max(system.energy, 1e-300))


def _assigned(cost: Array, order: Order) -> Order:
    """Lower the total cost of an order by swaps of two units, many at once, until none lowers it.

    Args:
        cost: cost of each unit at each place.
        order: units by place, to start from.
    """
    order = order.copy()
    places = np.arange(len(order))
    for _ in range(SWAP_ROUNDS):
        at = cost[order]  # (place, place): the unit at one place moved to another
        own = at[places, places]
        gain = own[:, None] + own - at - at.T
        best = gain.argmax(1)
        gains = gain[places, best]
        taken = np.zeros(len(order), bool)
        swapped = False
        for place in np.argsort(-gains):
            other = int(best[place])
            if gains[place] <= 1e-9 * max(float(own.sum()), 1e-300):
                break
            if not (taken[place] or taken[other]):
                taken[[place, other]] = True
                order[[place, other]] = order[[other, place]]
                swapped = True
        if not swapped:
            break
    return order
