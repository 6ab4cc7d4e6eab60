"""Changed images against ones made pixel by pixel, and trainings that change them."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from kronmodel import KroneckerConfig, build
from kronmodel.cli import main as cli
from kronmodel.data.dataset import Dataset
from kronmodel.training.augment import Augmenter
from kronmodel.training.checkpoint import Checkpoint
from kronmodel.training.config import Augmentation, TrainConfig
from kronmodel.training.loop import Progress, TrainResult, train

SHAPE = (3, 7, 11)  # channels, height, width
ALL = Augmentation(shift=1.5, rotate=20, zoom=0.2, flip=True)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(count: int, more: int = 0) -> Tensor:
    return torch.rand(count, math.prod(SHAPE) + more, generator=generator(1))


def resampled(image: NDArray[Any], source: NDArray[Any]) -> NDArray[Any]:
    """The image ``(channels, height, width)`` with pixel ``(x, y)`` from ``source @ (x, y, 1)``, from the middle on."""
    channels, height, width = image.shape
    padded = np.zeros((channels, height + 2, width + 2))
    padded[:, 1:-1, 1:-1] = image
    out = np.zeros_like(image, dtype=np.float64)
    for i in range(height):
        for j in range(width):
            x, y = source @ (j - (width - 1) / 2, i - (height - 1) / 2, 1)
            x, y = x + (width - 1) / 2 + 1, y + (height - 1) / 2 + 1
            x, y = min(max(x, 0), width + 1), min(max(y, 0), height + 1)  # beyond its border nothing but zeros
            left, top = min(int(x), width), min(int(y), height)
            across, down = x - left, y - top
            out[:, i, j] = (1 - down) * ((1 - across) * padded[:, top, left] + across * padded[:, top, left + 1])
            out[:, i, j] += down * ((1 - across) * padded[:, top + 1, left] + across * padded[:, top + 1, left + 1])
    return out


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        (Augmentation(shift=2.5), (2.5, 0, 0)),
        (Augmentation(rotate=30), (0, 30, 0)),
        (Augmentation(zoom=0.3), (0, 0, 0.3)),
        (Augmentation(flip=True), (0, 0, 0)),
        (ALL, (1.5, 20, 0.2)),
    ],
    ids=["shift", "rotate", "zoom", "flip", "all"],
)
def test_images_are_changed_as_said_within_the_limits(limits: Augmentation, most: tuple[float, float, float]) -> None:
    """From each map the shift, angle and factors are read, and the image is made again, pixel by pixel."""
    augmenter = Augmenter(limits, SHAPE, math.prod(SHAPE))
    before = rows(40)
    maps = augmenter.draw(40, generator())
    after = augmenter.change(before, maps).reshape(40, *SHAPE).numpy()
    _, height, width = SHAPE
    mirrored = 0
    seen = np.zeros(3)
    sides = np.array([width / 2, height / 2, 1])
    for image, changed, drawn in zip(before.reshape(40, *SHAPE).numpy(), after, maps.double().numpy(), strict=True):
        (a, b, p), (c, d, q) = source = drawn * sides[:2, None] / sides  # in pixels
        across, down = math.copysign(math.hypot(a, c), a), math.hypot(b, d)
        angle = math.atan2(-b, d)
        assert (a, c) == pytest.approx((across * math.cos(angle), across * math.sin(angle)), abs=1e-6)
        found = np.abs([max(abs(p), abs(q)), math.degrees(angle), max(abs(abs(across) - 1), abs(down - 1))])
        assert (found <= np.array(most) + 1e-4).all()
        seen = np.maximum(seen, found)
        mirrored += across < 0
        want = resampled(image, source)
        np.testing.assert_allclose(changed, want, atol=1e-5)
    assert (seen >= 0.8 * np.array(most)).all()  # of 40 draws the largest is near its limit
    assert (10 < mirrored < 30) if limits.flip else mirrored == 0


def test_whole_pixels_are_moved_exactly_and_what_comes_in_is_zero() -> None:
    augmenter = Augmenter(Augmentation(shift=3), SHAPE, math.prod(SHAPE))
    _, height, width = SHAPE
    maps = torch.tensor([[[1.0, 0.0, 2 * 2 / width], [0.0, 1.0, -1 * 2 / height]]])  # from 2 to the right, 1 above
    before = rows(1).reshape(SHAPE).numpy()
    want = np.zeros(SHAPE, np.float32)
    want[:, 1:, :-2] = before[:, :-1, 2:]
    np.testing.assert_allclose(augmenter.change(rows(1), maps).reshape(SHAPE).numpy(), want, atol=1e-5)


def test_what_fills_a_row_up_stays_and_an_empty_batch_is_one() -> None:
    augmenter = Augmenter(ALL, SHAPE, math.prod(SHAPE) + 5)
    before = rows(4, more=5)
    after = augmenter.change(before, augmenter.draw(4, generator()))
    assert torch.equal(after[:, -5:], before[:, -5:])
    assert not torch.equal(after[:, :-5], before[:, :-5])
    assert augmenter.change(before[:0], augmenter.draw(0, generator())).shape == (0, math.prod(SHAPE) + 5)


def test_height_and_width_alone_are_one_channel() -> None:
    flat, deep = (Augmenter(ALL, shape, 77) for shape in ((7, 11), (1, 7, 11)))
    before = rows(6)[:, :77]
    maps = flat.draw(6, generator())
    assert torch.equal(flat.change(before, maps), deep.change(before, deep.draw(6, generator())))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"shift": -1.0}, r"shift must be between 0 and 1024 \(pixels\), got -1.0"),
        ({"rotate": 181.0}, r"rotate must be between 0 and 180 \(degrees\), got 181.0"),
        ({"zoom": math.nan}, r"zoom must be between 0 and 0.9 \(as a share\), got nan"),
    ],
)
def test_limits_out_of_range(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**limits)
    with pytest.raises(ValueError, match=message):
        TrainConfig(epochs=1, **limits)


def test_rows_that_are_no_images_or_too_short(digits: Dataset) -> None:
    with pytest.raises(ValueError, match=r"images of shape \(3, 7, 11\) have 231 values, got rows of 230"):
        Augmenter(ALL, SHAPE, 230)
    with pytest.raises(ValueError, match=r"Augmentation\(shift=2.0, .*\) is for images, got data that are none"):
        trained(replace(CONFIG, shift=2.0), replace(digits, image_shape=None))


NETWORK = KroneckerConfig(in_shape=(28, 28), hidden=((16, 12),), out_shape=(2, 5))
CONFIG = TrainConfig(epochs=3, batch_size=150, learning_rate=1e-2, seed=3, shift=1, rotate=10, zoom=0.1)


def trained(
    config: TrainConfig, data: Dataset, *arguments: Any, **options: Any
) -> tuple[dict[str, Tensor], TrainResult]:
    torch.manual_seed(config.seed)
    network = build(NETWORK)
    result = train(network, data, config, *arguments, **options)
    return network.state_dict(), result


def test_a_training_on_changed_images_is_another_one_and_can_be_resumed_to_the_bit(
    digits: Dataset, tmp_path: Path
) -> None:
    def interrupt(now: Progress) -> None:
        if now.epoch == 2:
            raise KeyboardInterrupt

    whole, result = trained(CONFIG, digits)
    plain, _ = trained(replace(CONFIG, shift=0, rotate=0, zoom=0), digits)
    with pytest.raises(KeyboardInterrupt), Checkpoint(tmp_path, {}, resume=True) as checkpoint:
        trained(CONFIG, digits, interrupt, checkpoint=checkpoint)
    with Checkpoint(tmp_path, {}, resume=True) as checkpoint:
        resumed, again = trained(CONFIG, digits, checkpoint=checkpoint)
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name
        assert not torch.equal(tensor, plain[name]), name
    assert again.epoch_scores == result.epoch_scores


def test_the_network_is_trained_on_the_very_images_that_were_drawn(digits: Dataset) -> None:
    """One step against a gradient of our own."""
    few = replace(digits, x_train=digits.x_train[:20], y_train=digits.y_train[:20])
    config = replace(CONFIG, epochs=1, batch_size=20, optimizer="sgd", schedule="constant", flip=True)
    got, _ = trained(config, few)
    draws = generator(config.seed)
    order = torch.randperm(20, generator=draws)
    augmenter = Augmenter(config.augmentation, (28, 28), 784)
    x = augmenter.change(torch.from_numpy(few.x_train)[order], augmenter.draw(20, draws))
    torch.manual_seed(config.seed)
    network = build(NETWORK)
    torch.nn.functional.cross_entropy(network(x), torch.from_numpy(few.y_train)[order]).backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None
        torch.testing.assert_close(got[name], weight.detach() - config.learning_rate * weight.grad, msg=name)


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "line.csv"
    table.write_text("a,b,c,d,y\n" + "".join(f"{n},{n % 7},{n % 5},{n % 3},{n * 1.5}\n" for n in range(50)))
    options = ["--hidden", "4x4", "--epochs", "1", "--out", str(tmp_path / "models")]
    assert cli.main(["train", "--data", str(table), "--target", "y", "--rotate", "5", *options]) == 2
    assert "rotate=5.0, zoom=0.0, flip=False) is for images, got data that are none" in " ".join(
        capsys.readouterr().err.split()
    )
    assert cli.main(["train", "--data", "digits", "--shift", "1", "--no-flip", "--kind", "kronecker", *options]) == 0
    capsys.readouterr()
    path = tmp_path / "models" / "digits-kronecker" / "1" / "model.onnx"
    assert cli.main(["info", str(path)]) == 0
    assert "shift: 1.0" in capsys.readouterr().out
