"""Convolutional features against convolutions written out by hand, and the authors' CIFAR-10 networks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from kronmodel import ConvConfig, ConvFeatures, DenseConfig, KroneckerConfig, Network, build
from kronmodel.data.dataset import Dataset
from kronmodel.export.published import publish_members
from kronmodel.nn.conv import parse_channels
from kronmodel.training.config import TrainConfig
from kronmodel.training.members import make_members, train_member
from kronmodel.training.recipes import RECIPES

Doubles = NDArray[np.float64]

SMALL = ConvConfig(image_shape=(2, 10, 15), channels=(3, 4), dropout=0.25)
CIFAR10 = (3, 32, 32)


def features(config: ConvConfig = SMALL, **options: Any) -> ConvFeatures:
    """Make features with random biases too: zeros would hide where they are added."""
    torch.manual_seed(0)
    made = ConvFeatures(config, **options).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_()
    return made


def by_hand(image: Doubles, made: ConvFeatures) -> Doubles:
    """Compute features of an image ``(h, w, c)``, as in Keras: sums over the kernel, relu, the largest of four."""
    for layer in made.convolutions:
        kernel = layer.weight.detach().permute(2, 3, 1, 0).numpy()  # type: ignore[operator]  # (3, 3, in, out)
        bias = layer.bias.detach().numpy()  # type: ignore[operator]
        height, width, _ = image.shape
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
        out = np.zeros((height, width, kernel.shape[3]))
        for i in range(height):
            for j in range(width):
                out[i, j] = np.tensordot(padded[i : i + 3, j : j + 3], kernel, axes=3) + bias
        out = np.maximum(out, 0)
        pooled = np.zeros((height // 2, width // 2, out.shape[2]))
        for i in range(height // 2):
            for j in range(width // 2):
                pooled[i, j] = out[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max(axis=(0, 1))
        image = pooled
    return image.reshape(-1)  # row, column, channel: the channel runs fastest


def test_features_are_those_computed_by_hand_in_keras_order() -> None:
    made = features()
    images = np.random.default_rng(0).normal(size=(3, 2, 10, 15))
    want = np.stack([by_hand(image.transpose(1, 2, 0), made) for image in images])
    got = made(torch.from_numpy(images)).detach().numpy()
    assert got.shape == (3, SMALL.out_features) == (3, 2 * 3 * 4)
    np.testing.assert_allclose(got, want, rtol=1e-10)
    channel_first = want.reshape(3, 2, 3, 4).transpose(0, 3, 1, 2).reshape(3, -1)
    assert not np.allclose(got, channel_first)  # or the test would not see the order


def test_the_kronecker_head_sees_the_features_in_that_order() -> None:
    config = KroneckerConfig(
        in_shape=(4, 6), hidden=(), out_shape=(2, 5), rank=2, order=("left", "right"), activation="relu", features=SMALL
    )
    torch.manual_seed(1)
    network = build(config).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
    images = np.random.default_rng(1).normal(size=(3, 2, 10, 15))
    assert network.features is not None
    (layer,) = network.layers
    p = {name: each.detach().numpy() for name, each in layer.named_parameters()}
    a, b = p["factors.0"], p["factors.1"]
    want = []
    for image in images:
        x = by_hand(image.transpose(1, 2, 0), network.features).reshape(4, 6)
        left = np.maximum(a[0] @ x + p["left_biases.0"][0], 0) @ b[0].T
        right = a[1] @ np.maximum(x @ b[1].T + p["right_biases.0"][0], 0)
        want.append((left + right).reshape(-1) + p["bias"])
    np.testing.assert_allclose(network(torch.from_numpy(images)).detach().numpy(), want, rtol=1e-10)


@pytest.mark.parametrize("activation", [torch.sin, nn.PReLU(), lambda z: z.clamp(-1, 1)])
def test_any_function_is_an_activation(activation: Any) -> None:
    made = features(activation=activation)
    images = torch.randn(3, 2, 10, 15, dtype=torch.float64)
    want = images
    for layer in made.convolutions:
        want = F.conv2d(want, layer.weight, layer.bias, padding=1)  # type: ignore[arg-type]
        want = F.max_pool2d(activation(want), 2)
    want = want.permute(0, 2, 3, 1).flatten(1)
    parameters = list(made.parameters())
    assert len(parameters) == (5 if isinstance(activation, nn.Module) else 4)
    torch.testing.assert_close(made(images), want)
    direction = torch.randn_like(want)
    for got, exact in zip(
        torch.autograd.grad(made(images), parameters, direction),
        torch.autograd.grad(want, parameters, direction),
        strict=True,
    ):
        torch.testing.assert_close(got, exact)


def test_flat_rows_are_the_same_images_and_a_batch_may_be_empty() -> None:
    made = features()
    images = torch.randn(3, 2, 10, 15, dtype=torch.float64)
    torch.testing.assert_close(made(images.flatten(1)), made(images), rtol=0, atol=0)
    assert made(images[:0]).shape == made(images[:0].flatten(1)).shape == (0, 24)
    with pytest.raises(ValueError, match=r"shape \(batch, 2, 10, 15\) or \(batch, 300\), got \(3, 2, 15, 10\)"):
        made(images.transpose(2, 3))
    with pytest.raises(ValueError, match=r"got \(3, 299\)"):
        made(images.flatten(1)[:, 1:])


def test_gradients_are_those_of_finite_differences() -> None:
    made = features(ConvConfig(image_shape=(2, 5, 4), channels=(2,)), activation="tanh")
    names, values = zip(*made.named_parameters(), strict=True)
    x = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.func.functional_call(made, dict(zip(names, values, strict=True)), (x,))
        return out

    assert torch.autograd.gradcheck(run, (x, *values))


def test_gradients_of_single_samples_by_vmap() -> None:
    made = features()
    values = {name: value.detach() for name, value in made.named_parameters()}
    x = torch.randn(5, 2, 10, 15, dtype=torch.float64)

    def loss(values: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.func.functional_call(made, values, (image[None],))
        return out.square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(values, x)
    for index, image in enumerate(x):
        for name, gradient in torch.func.grad(loss)(values, image).items():
            torch.testing.assert_close(each[name][index], gradient)


def test_dropout_is_for_training_only() -> None:
    made = features().float()
    with torch.no_grad():
        made.convolutions[-1].bias.fill_(1e3)  # type: ignore[operator]  # no feature is zero by itself
    images = torch.randn(500, 2, 10, 15)
    assert torch.equal(made(images), made(images))
    assert (made(images) == 0).sum() == 0
    made.train()
    assert float((made(images) == 0).float().mean()) == pytest.approx(SMALL.dropout, abs=0.02)


def test_multiply_adds_are_what_torch_counts() -> None:
    config = KroneckerConfig(in_shape=(4, 6), hidden=((5, 3),), out_shape=(2, 5), rank=3, features=SMALL)
    either: tuple[KroneckerConfig | DenseConfig, ...] = (config, config.dense())
    for each in either:
        network = build(each)
        counter = FlopCounterMode(display=False)
        with counter:
            network(torch.randn(11, 2, 10, 15))
        assert counter.get_total_flops() == 2 * 11 * network.macs_per_sample
        cards = network.layer_cards()
        assert sum(card["macs_per_sample"] for card in cards) == network.macs_per_sample
        assert sum(card["parameters"] for card in cards) == network.parameter_count
        assert [card["in_shape"] for card in cards[:2]] == [[2, 10, 15], [3, 5, 7]]
        assert (cards[1]["kind"], cards[1]["out_shape"], cards[1]["kernel"]) == ("Conv2d", [4, 2, 3], [3, 3])
        assert network.in_features == 300
        assert network.input_shape == (2, 10, 15)


def test_initialisations_are_glorot_and_he() -> None:
    torch.manual_seed(0)
    config = ConvConfig(image_shape=CIFAR10, channels=(16, 64, 256))
    head: Any = {"in_features": 4096, "hidden": (), "out_features": 10, "activation": "relu", "features": config}
    inits: Any = ("glorot", "level")
    for init in inits:
        made = build(DenseConfig(init=init, **head)).features
        assert made is not None
        for layer, (before, after) in zip(made.convolutions, ((3, 16), (16, 64), (64, 256)), strict=True):
            weight: Any = layer.weight.detach()  # type: ignore[operator]
            bound = (6 / (9 * before + 9 * after)) ** 0.5
            std = bound / 3**0.5 if init == "glorot" else (2 / (9 * before)) ** 0.5
            assert float(weight.std()) == pytest.approx(std, rel=0.1)
            assert (float(weight.abs().max()) <= bound) == (init == "glorot")
            assert not layer.bias.any()  # type: ignore[operator]
    with pytest.raises(ValueError, match="level, glorot, got 'zero'"):
        ConvFeatures(SMALL).reset_parameters("zero")  # type: ignore[arg-type]  # wrong on purpose


def coloured(shape: Any = CIFAR10, count: int = 120) -> Dataset:
    """Make noise in the format of CIFAR-10, whose class decides which corner is bright in which channel."""
    rng = np.random.default_rng(0)
    y = np.arange(count, dtype=np.int64) % 6
    images = rng.random((count, *shape)) / 2
    for image, label in zip(images, y, strict=True):
        image[label % 3, : shape[1] // 2, label // 3 * shape[2] // 2 :][:, : shape[2] // 2] += 0.5
    x = images.reshape(count, -1).astype(np.float32)
    half = count // 2
    return Dataset(
        name="coloured",
        x_train=x[:half],
        y_train=y[:half],
        x_test=x[half:],
        y_test=y[half:],
        labels=tuple("abcdef"),
        image_shape=shape,
        preprocessing="none",
        origin="this test",
    )


def cifar10_networks() -> dict[str, Network]:
    """Build the authors' three networks for CIFAR-10 images of 10 classes."""
    data = replace(coloured(), labels=tuple("0123456789"))
    rank_1, rank_4 = (
        make_members("p", data, name, RECIPES[name], {}) for name in ("paper-cifar10", "paper-cifar10-rank-4")
    )
    configs = {"dense": rank_1["dense"], "rank 1": rank_1["kronecker"], "rank 4": rank_4["kronecker"]}
    with torch.device("meta"):  # counted, not computed
        return {name: build(member.config) for name, member in configs.items()}


def test_weights_of_the_published_cifar10_networks() -> None:
    """Published in the table in arXiv 2204.04273, which counts an output bias for each of the four branches."""
    networks = cifar10_networks()
    published = {name: network.parameter_count_with_branch_biases for name, network in networks.items()}
    assert published == {"dense": 33_761_034, "rank 1": 190_794, "rank 4": 291_048}
    ours = {name: network.parameter_count for name, network in networks.items()}
    assert ours == {"dense": 33_761_034, "rank 1": 190_794, "rank 4": 291_048 - 3 * (4096 + 4096 + 10)}
    convolutions = 9 * (32**2 * 3 * 16 + 16**2 * 16 * 64 + 8**2 * 64 * 256)
    assert networks["dense"].macs_per_sample == convolutions + 2 * 4096**2 + 40_960
    assert networks["rank 1"].macs_per_sample == convolutions + 4 * 64**3 + 2 * 64 * 64 + 2 * 64 * 5


def test_the_recipe_is_the_authors_configuration() -> None:
    for name, orders in (("paper-cifar10", "left"), ("paper-cifar10-rank-4", ("left", "left", "left", "right"))):
        recipe = RECIPES[name]
        assert (recipe.features, recipe.dropout, recipe.activation, recipe.init) == (
            (16, 64, 256),
            0.2,
            "relu",
            "glorot",
        )
        assert (recipe.order, recipe.hidden) == (orders, ((64, 64), (64, 64)))
        assert (
            recipe.kronecker
            == recipe.dense
            == TrainConfig(epochs=20, batch_size=128, optimizer="adam", learning_rate=1e-3, schedule="constant")
        )


def test_a_twin_on_colour_images_is_trained_exported_and_the_same_in_onnxruntime(tmp_path: Path) -> None:
    data = coloured(shape=(3, 12, 16))
    recipe = replace(RECIPES["paper-cifar10-rank-4"], features=(4, 8), hidden=((8, 6),))
    members = make_members(
        "colour", data, "paper-cifar10", recipe, {"epochs": 30, "batch_size": 20, "learning_rate": 1e-2}
    )
    trained = [(member, *train_member(member, data)) for member in members.values()]
    published = publish_members(trained, data, tmp_path)
    for (_, network, result), each in zip(trained, published, strict=True):
        assert result.test_score > 0.9
        model = onnx.load(each.path)
        sizes = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
        assert sizes == ["batch", 3, 12, 16]
        assert each.card["input"] == {"kind": "image", "shape": [3, 12, 16], "range": [0.0, 1.0]}
        samples = np.load(each.path.with_name("samples.npz"))["inputs"]
        assert samples.shape == (60, 3, 12, 16)
        session = onnxruntime.InferenceSession(each.path, providers=["CPUExecutionProvider"])
        network.eval()
        for batch in (1, 2, 33, 60):
            (logits,) = session.run(["logits"], {"input": samples[:batch]})
            with torch.inference_mode():
                want = network(torch.from_numpy(samples[:batch])).numpy()
            np.testing.assert_allclose(logits, want, rtol=1e-4, atol=1e-4)


def test_the_same_seed_gives_the_same_weights_dropout_included() -> None:
    data = coloured(shape=(3, 12, 16))
    recipe = replace(RECIPES["paper-cifar10"], features=(4, 8), hidden=((8, 6),))
    member = make_members("colour", data, "paper-cifar10", recipe, {"epochs": 2, "batch_size": 20})["kronecker"]
    first, again = (train_member(member, data)[0].state_dict() for _ in range(2))
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name]), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_shape": (28, 28)}, r"image_shape must be \(channels, height, width\), got \(28, 28\)"),
        ({"image_shape": (3, 0, 32)}, r"got \(3, 0, 32\)"),
        ({"channels": ()}, r"channels must be whole numbers between 1 and 65536 such as \(16, 64, 256\), got \(\)"),
        ({"channels": (16, True)}, r"got \(16, True\)"),
        ({"channels": (1, 1, 1, 1)}, "4 convolutions halve .* at least 16 pixels each way, got 10x15"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"dropout": float("nan")}, "got nan"),
    ],
)
def test_impossible_features(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


def test_a_head_that_does_not_fit_its_features() -> None:
    with pytest.raises(ValueError, match="must take the 24 features that the convolutions give, got 25"):
        KroneckerConfig(in_shape=(5, 5), hidden=(), out_shape=(2, 5), features=SMALL)
    with pytest.raises(ValueError, match="must take the 24 features that the convolutions give, got 300"):
        DenseConfig(in_features=300, hidden=(), out_features=10, features=SMALL)
    with pytest.raises(ValueError, match="one of gelu, relu, tanh, got 'softplus'"):
        ConvFeatures(SMALL, "softplus")


def test_channels_are_parsed() -> None:
    assert parse_channels("16, 64,256") == (16, 64, 256)
    for text in ("", "16,", "16x64", "-1", "1.5", "9999999999"):
        with pytest.raises(ValueError, match="expected channels such as 16,64,256, got"):
            parse_channels(text)


def test_repr_says_what_the_features_are() -> None:
    assert "(2, 10, 15) -> 24, activation='relu'" in repr(ConvFeatures(SMALL))
