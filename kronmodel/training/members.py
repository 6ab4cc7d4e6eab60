"""Configuration and training of the two networks of a twin, Kronecker and dense, from a recipe and a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from torch import Tensor

from kronmodel.data.dataset import Dataset, prepared
from kronmodel.errors import Argument, Message, TrainingError, is_out_of_memory, out_of_memory_text
from kronmodel.nn.conv import ConvConfig
from kronmodel.nn.networks import DenseConfig, KroneckerConfig, Network, build
from kronmodel.quantization.aware import QuantizationAwareNetwork
from kronmodel.shapes import balanced_shape, image_of, input_shape, output_shape
from kronmodel.training.checkpoint import Checkpoint
from kronmodel.training.config import TrainConfig
from kronmodel.training.device import seeded
from kronmodel.training.distributed import ALONE, Group
from kronmodel.training.history import Epoch
from kronmodel.training.loop import Progress, TrainResult, train
from kronmodel.training.recipes import Recipe

__all__ = ["InitialWeights", "Member", "Role", "fingerprint", "make_members", "train_member"]

SMALLEST_AUGMENTED = 16  # pixels a side; in smaller images, a shift by a pixel of a recipe's augmentation is too large

Role = Literal["kronecker", "dense"]


@dataclass(frozen=True, kw_only=True, eq=False)
class InitialWeights:
    """Trained weights that a training starts from.

    Attributes:
        source: description of where they come from, for messages and the model card.
        config: configuration of their network.
        values: tensors of the network by name.
    """

    source: str
    config: KroneckerConfig | DenseConfig
    values: Mapping[str, Tensor]

    @property
    def sha256(self) -> str:
        """Digest of all values."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.values.items()):
            digest.update(name.encode() + tensor.detach().float().contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Member:
    """Configuration of one network of a twin and of its training.

    Attributes:
        twin: name of the twin.
        role: role of the network in the twin.
        config: configuration of the network.
        training: configuration of the network's training.
        recipe: name of the recipe, for the model card.
        start: trained weights that the training starts from; None for random ones.
    """

    twin: str
    role: Role
    config: KroneckerConfig | DenseConfig
    training: TrainConfig
    recipe: str
    start: InitialWeights | None = None

    @property
    def name(self) -> str:
        """Name of the model in the repository."""
        return f"{self.twin}-{self.role}"


def make_members(
    twin: str, data: Dataset, recipe_name: str, recipe: Recipe, overrides: dict[str, Any], *, pad: bool = False
) -> dict[Role, Member]:
    """Configure the two networks of a twin from a recipe and a data set.

    Args:
        twin: name of the twin; its networks are named ``<twin>-kronecker`` and ``<twin>-dense``.
        data: data set, which determines the shapes of input and output.
        recipe_name: name of the recipe, for the model card.
        recipe: hidden shapes, rank, activation and training.
        overrides: fields of :class:`TrainConfig` that replace the recipe's, for both networks.
        pad: pad the Kronecker network's features with zeros to a width that has balanced factors.

    Raises:
        ValueError: a shape, a rank or another value is invalid, or augmentation is configured for data that are not
            images.
    """
    features = None
    if recipe.features:
        image = image_of(data.image_shape)
        features = ConvConfig(image_shape=image, channels=recipe.features, dropout=recipe.dropout)
    config = KroneckerConfig(
        in_shape=(
            input_shape(data.features, data.image_shape, pad=pad)
            if features is None
            else balanced_shape(features.out_features)
        ),
        hidden=recipe.hidden,
        out_shape=output_shape(data.outputs),
        rank=recipe.rank,
        layer=recipe.layer,
        order=recipe.order,
        activation=recipe.activation,
        init=recipe.init,
        features=features,
    )
    dense = config.dense()
    if features is None:
        dense = replace(dense, in_features=data.features)
    if recipe.dense_hidden is not None:
        dense = replace(dense, hidden=recipe.dense_hidden)

    def member(role: Role, network: KroneckerConfig | DenseConfig, training: TrainConfig) -> Member:
        if data.image_shape is None or min(data.image_shape[-2:]) < SMALLEST_AUGMENTED:
            training = replace(training, shift=0.0, rotate=0.0, zoom=0.0, flip=False)
        training = replace(training, **overrides)
        return Member(twin=twin, role=role, config=network, training=training, recipe=recipe_name)

    return {
        "kronecker": member("kronecker", config, recipe.kronecker),
        "dense": member("dense", dense, recipe.dense),
    }


def fingerprint(member: Member, data: Dataset) -> dict[str, Any]:
    """Collect the configuration that must match a checkpoint's for the training to be resumed from it.

    Device, compilation and learning rate are left out; the learning rate may be lowered after a divergence.
    """
    training = asdict(member.training)
    for name in ("device", "compile", "learning_rate"):
        del training[name]
    if member.training.quantization is None:  # as in the checkpoints of versions without quantisation
        for name in ("bits", "bias_bits", "bias_form", "activation_bits", "quantize_epochs"):
            del training[name]
    return {
        "role": member.role,
        "network": asdict(member.config),
        "training": training,
        "data": {"name": data.name, "sha256": data.sha256},
        **({} if member.start is None else {"initial_weights": member.start.sha256}),
    }


def train_member(
    member: Member,
    data: Dataset,
    report: Callable[[Progress], None] = lambda progress: None,
    *,
    log: Callable[[Epoch], None] = lambda epoch: None,
    checkpoint: Checkpoint | None = None,
    group: Group = ALONE,
) -> tuple[Network, TrainResult]:
    """Build and train one network of a twin, from given weights or random ones of its seed.

    Torch's random state is unchanged.

    Raises:
        TrainingError: the loss is no longer finite, memory has run out, or another process of the run has ended; with
            a checkpoint, the message says how to resume.
        CheckpointError: the checkpoint can't be read or written.
    """
    try:
        with seeded(member.training.seed, member.training.device), group.connected():
            network = build(member.config)
            if member.start is not None:
                network.load_state_dict(dict(member.start.values))
            ready = prepared(data, network.in_features)
            quantization = member.training.quantization
            trained = network if quantization is None else QuantizationAwareNetwork(network, quantization)
            result = train(trained, ready, member.training, report, log=log, checkpoint=checkpoint, group=group)
            return (network if isinstance(trained, Network) else trained.quantized()), result
    except TrainingError as error:
        if checkpoint is None or not checkpoint.hint:
            raise
        raise TrainingError(Message(f"{error}; ", *checkpoint.hint.parts)) from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        text = f"{out_of_memory_text(error)} for the training of {member.name}; free memory, or use a smaller "
        hint = checkpoint.hint.parts if checkpoint is not None else ()
        raise TrainingError(
            Message(text, Argument("batch_size"), *(("; ", *hint, " if there is enough memory") if hint else ()))
        ) from error
