"""Training configuration: optimizer, schedule, precision, validation and image augmentation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from kronmodel.quantization.config import FLOAT_BITS, BiasForm, QuantizationConfig

__all__ = ["Augmentation", "TrainConfig"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Largest random changes of training images, drawn for each image; zeros disable the augmentation.

    Attributes:
        shift: largest shift in pixels, up, down, left or right.
        rotate: largest rotation in degrees, in either direction.
        zoom: largest stretch or shrinkage, as a fraction; height and width are scaled independently.
        flip: mirror half of the images, left to right.

    Raises:
        ValueError: a value outside its range.
    """

    shift: float = 0.0
    rotate: float = 0.0
    zoom: float = 0.0
    flip: bool = False

    def __post_init__(self) -> None:
        for name, unit, most in (("shift", "pixels", 1024), ("rotate", "degrees", 180), ("zoom", "as a share", 0.9)):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise ValueError(f"{name} must be between 0 and {most} ({unit}), got {value!r}")

    def __bool__(self) -> bool:
        return bool(self.shift or self.rotate or self.zoom or self.flip)


Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["one-cycle", "constant"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Configuration of a training.

    Attributes:
        epochs: passes over the training data.
        batch_size: samples per step; the last batch of an epoch may be smaller.
        optimizer: ``"adam"`` (without weight decay), ``"adamw"`` or ``"sgd"`` (plain, without momentum).
        learning_rate: constant, or the maximum of the one-cycle schedule.
        schedule: ``"one-cycle"`` (Smith & Topin, arXiv 1708.07120) or ``"constant"``.
        weight_decay: weight decay of AdamW.
        seed: random seed of the initial weights and of the order of the samples.
        device: training device, such as ``"cpu"`` or ``"cuda"``.
        validation_share: fraction of the training samples, drawn by the seed, that is held out to choose the epoch
            whose weights are kept; 0 keeps those of the last epoch.
        patience: stop after this number of epochs without a better validation score; 0 disables early stopping.
        precision: precision of the activations in training: ``"float32"``, or ``"bfloat16"`` by autocast. Weights,
            evaluations and exported models are float32.
        compile: run the training steps through torch.compile with CUDA graphs; for CUDA devices only.
        shift: largest random shift of a training image in pixels, in either direction, drawn anew in each epoch.
        rotate: largest random rotation of a training image in degrees, in either direction.
        zoom: largest random stretch or shrinkage of a training image's height and width, as a fraction.
        flip: mirror half of the training images, left to right.
        bits: bits of a weight in quantisation-aware training: 8, 4 or 2, one number for all layers or one for each;
            32 for float weights.
        bias_bits: bits of a bias if weights are quantised: 8, or 32 for float.
        bias_form: form of the biases of Kronecker layers if weights are quantised: ``"full"``, or ``"row-column"`` for
            a vector for each axis of the features.
        activation_bits: bits of the activations if weights are quantised: 8, or 32 for float.
        quantize_epochs: last epochs, in which weights are quantised; 0 for all epochs.

    Raises:
        ValueError: a value outside its range.
    """

    epochs: int
    batch_size: int = 128
    optimizer: Optimizer = "adamw"
    learning_rate: float = 3e-3
    schedule: Schedule = "one-cycle"
    weight_decay: float = 0.01
    seed: int = 0
    device: str = "cpu"
    validation_share: float = 0.0
    patience: int = 0
    precision: Precision = "float32"
    compile: bool = False
    shift: float = 0.0
    rotate: float = 0.0
    zoom: float = 0.0
    flip: bool = False
    bits: int | tuple[int, ...] = FLOAT_BITS
    bias_bits: int = 8
    bias_form: BiasForm = "full"
    activation_bits: int = FLOAT_BITS
    quantize_epochs: int = 0

    def __post_init__(self) -> None:
        whole = (
            ("epochs", 1, 100_000),
            ("batch_size", 1, 1 << 20),
            ("seed", 0, (1 << 63) - 1),
            ("patience", 0, 100_000),
        )
        for name, low, high in whole:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name} must be a whole number between {low} and {high}, got {value!r}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate must be a number above 0, got {self.learning_rate!r}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay must be a number of at least 0, got {self.weight_decay!r}")
        if self.optimizer not in ("adam", "adamw", "sgd"):
            raise ValueError(f"optimizer must be adam, adamw or sgd, got {self.optimizer!r}")
        if self.schedule not in ("one-cycle", "constant"):
            raise ValueError(f"schedule must be one-cycle or constant, got {self.schedule!r}")
        if not 0 <= self.validation_share < 1:
            raise ValueError(f"validation_share must be at least 0 and below 1, got {self.validation_share!r}")
        if self.patience and not self.validation_share:
            raise ValueError(f"patience needs a validation_share above 0 to judge by, got patience {self.patience}")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be float32 or bfloat16, got {self.precision!r}")
        if self.compile and not self.device.startswith("cuda"):
            raise ValueError(f"compile is for CUDA devices: on others it doesn't pay, got device {self.device!r}")
        _ = self.augmentation, self.quantization  # validates the values

    @property
    def augmentation(self) -> Augmentation:
        """Augmentation of training images that the fields of this configuration describe."""
        return Augmentation(shift=self.shift, rotate=self.rotate, zoom=self.zoom, flip=self.flip)

    @property
    def quantization(self) -> QuantizationConfig | None:
        """Quantisation that the fields of this configuration describe; None for float weights.

        Raises:
            ValueError: a value is invalid, or is of no use without quantised weights.
        """
        quantization = QuantizationConfig(
            bits=self.bits,
            bias_bits=self.bias_bits,
            bias_form=self.bias_form,
            activation_bits=self.activation_bits,
            epochs=self.quantize_epochs,
        )
        if self.quantize_epochs > self.epochs:
            raise ValueError(f"quantize_epochs must be at most the {self.epochs} epochs, got {self.quantize_epochs}")
        if quantization.is_float:
            for name in ("bias_bits", "bias_form", "activation_bits", "quantize_epochs"):
                if getattr(self, name) != self.__dataclass_fields__[name].default:
                    raise ValueError(f"{name} is for quantised weights, got {getattr(self, name)!r} with bits 32")
            return None
        if self.compile:
            raise ValueError("compile is for float weights: expected bits 32, or a training without compilation")
        return quantization
