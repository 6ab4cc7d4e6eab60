"""Training on the 5,000 genuine digits."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kronmodel import DenseConfig, KroneckerConfig, Network, build
from kronmodel.data.dataset import Dataset
from kronmodel.errors import TrainingError
from kronmodel.training.config import TrainConfig
from kronmodel.training.loop import Progress, train
from kronmodel.training.recipes import RECIPES
from kronmodel.training.tasks import Classification

KRONECKER = KroneckerConfig(in_shape=(28, 28), hidden=((16, 12),), out_shape=(2, 5), rank=2)
SHORT = TrainConfig(epochs=2, batch_size=100, learning_rate=1e-2)


def trained(config: KroneckerConfig | DenseConfig, training: TrainConfig, data: Dataset) -> tuple[Network, Any]:
    torch.manual_seed(training.seed)
    network = build(config)
    return network, train(network, data, training)


@pytest.mark.parametrize("config", [KRONECKER, KRONECKER.dense()])
def test_training_learns_and_reports_what_it_did(config: KroneckerConfig | DenseConfig, digits: Dataset) -> None:
    reports: list[Progress] = []
    torch.manual_seed(0)
    network = build(config)
    result = train(network, digits, replace(SHORT, epochs=4), reports.append)
    assert result.test_score > 0.85
    assert result.test_score == result.epoch_scores[-1]
    assert len(result.epoch_scores) == 4
    assert result.steps == 4 * 40
    assert 0 < result.ms_per_step / 1000 < result.train_seconds
    assert [now.test_score for now in reports if now.test_score is not None] == list(result.epoch_scores)
    assert (reports[-1].step, reports[-1].steps, reports[-1].epoch) == (160, 160, 4)


def test_the_last_batch_of_an_epoch_is_not_dropped(digits: Dataset) -> None:
    assert trained(KRONECKER, replace(SHORT, epochs=1, batch_size=1024), digits)[1].steps == 4


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(digits: Dataset) -> None:
    first, again, other = (
        trained(KRONECKER, replace(SHORT, epochs=1, seed=seed), digits)[0].state_dict() for seed in (3, 3, 4)
    )
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name]), name
        assert not torch.equal(tensor, other[name]), name


def test_plain_sgd_at_a_constant_rate_is_the_textbook_update(digits: Dataset) -> None:
    """Three steps against gradients of our own, on the very batches."""
    few = replace(digits, x_train=digits.x_train[:30], y_train=digits.y_train[:30])
    config = TrainConfig(epochs=1, batch_size=10, optimizer="sgd", learning_rate=0.1, schedule="constant", seed=5)
    network, _ = trained(DenseConfig(in_features=784, hidden=(), out_features=10), config, few)

    torch.manual_seed(5)
    linear = build(DenseConfig(in_features=784, hidden=(), out_features=10)).layers[0]
    assert isinstance(linear, nn.Linear)
    weight, bias = linear.weight.detach().double().numpy(), linear.bias.detach().double().numpy()
    for batch in torch.randperm(30, generator=torch.Generator().manual_seed(5)).split(10):
        x, y = few.x_train[batch].astype(np.float64), few.y_train[batch]
        logits = x @ weight.T + bias
        softmax = np.exp(logits - logits.max(1, keepdims=True))
        error = (softmax / softmax.sum(1, keepdims=True) - np.eye(10)[y]) / 10
        weight, bias = weight - 0.1 * error.T @ x, bias - 0.1 * error.sum(0)
    np.testing.assert_allclose(network.state_dict()["layers.0.weight"].numpy(), weight, atol=1e-6)
    np.testing.assert_allclose(network.state_dict()["layers.0.bias"].numpy(), bias, atol=1e-6)


def test_plain_adam_is_the_textbook_update_and_does_not_decay_weights(digits: Dataset) -> None:
    """Kingma & Ba, arXiv 1412.6980, algorithm 1, with torch's gradients in float64."""
    few = replace(digits, x_train=digits.x_train[:30], y_train=digits.y_train[:30])
    config = TrainConfig(epochs=1, batch_size=10, optimizer="adam", learning_rate=1e-2, schedule="constant", seed=5)
    network, _ = trained(DenseConfig(in_features=784, hidden=(), out_features=10), config, few)

    torch.manual_seed(5)
    linear = build(DenseConfig(in_features=784, hidden=(), out_features=10)).layers[0].double()
    moments = {name: (torch.zeros_like(each), torch.zeros_like(each)) for name, each in linear.named_parameters()}
    for step, batch in enumerate(torch.randperm(30, generator=torch.Generator().manual_seed(5)).split(10), start=1):
        linear.zero_grad()
        x, y = torch.from_numpy(few.x_train)[batch].double(), torch.from_numpy(few.y_train)[batch]
        nn.functional.cross_entropy(linear(x), y).backward()
        with torch.no_grad():
            for name, weight in linear.named_parameters():
                assert weight.grad is not None
                first, second = moments[name]
                first.mul_(0.9).add_(0.1 * weight.grad)
                second.mul_(0.999).add_(0.001 * weight.grad**2)
                weight.sub_(1e-2 * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8))
    for name, weight in linear.named_parameters():
        got = network.state_dict()[f"layers.0.{name}"].double()
        # Where a gradient is next to nothing its sign decides, and float32 may round it the other way.
        assert float((got - weight.detach()).abs().quantile(0.99)) < 1e-5


def test_divergence_stops_with_a_clear_message(digits: Dataset) -> None:
    config = TrainConfig(epochs=2, optimizer="sgd", learning_rate=1e30, schedule="constant")
    with pytest.raises(TrainingError, match=r"diverged in epoch 1: the loss is (nan|inf); try a lower learning rate"):
        trained(KRONECKER, config, digits)


def test_score_is_the_share_of_largest_logits_at_the_label() -> None:
    x = torch.randn(5000, 3)
    y = torch.randint(0, 3, (5000,))
    expected = float((x.numpy().argmax(1) == y.numpy()).mean())
    assert Classification().score(nn.Identity(), x, y) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number between 1 and 100000, got 0"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"seed": -1}, "seed must be"),
        ({"learning_rate": 0.0}, "learning_rate must be a number above 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        ({"weight_decay": -0.1}, "weight_decay must be"),
        ({"optimizer": "adagrad"}, "optimizer must be adam, adamw or sgd, got 'adagrad'"),
        ({"schedule": "cosine"}, "schedule must be one-cycle or constant, got 'cosine'"),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SHORT, **changes)


def test_weights_and_multiply_adds_of_the_published_networks() -> None:
    """The table in arXiv 2204.04273; its rank 2 counts an output bias for each branch, of which we keep one."""
    paper = RECIPES["paper"]
    shapes: Any = {"in_shape": (28, 28), "hidden": paper.hidden, "out_shape": (2, 5), "activation": "tanh"}
    rank_1, rank_2 = (build(KroneckerConfig(rank=rank, **shapes)) for rank in (1, 2))
    dense = build(KroneckerConfig(rank=1, **shapes).dense())
    assert rank_1.parameter_count == 6_534
    assert (rank_1.parameter_count_with_branch_biases, rank_2.parameter_count_with_branch_biases) == (6_534, 13_068)
    assert rank_2.parameter_count == 11_490
    assert dense.parameter_count == 1_238_730
    assert dense.macs_per_sample == 2 * 784 * 784 + 7_840
    assert [card["macs_per_sample"] for card in rank_1.layer_cards()] == [43_904, 43_904, 1_848]
    assert (paper.rank, paper.kronecker, paper.dense) == (
        1,
        TrainConfig(epochs=20, batch_size=128, optimizer="sgd", learning_rate=0.1, schedule="constant"),
        paper.kronecker,
    )
