"""Any module as ONNX: computed by onnxruntime, which the export's own check doesn't use, against torch."""

import logging
import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from kronmodel import KroneckerDual, KroneckerLinear
from kronmodel.errors import ExportError
from kronmodel.export.exporter import to_onnx


def run(model: onnx.ModelProto, *inputs: Tensor) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {each.name: tensor.numpy() for each, tensor in zip(session.get_inputs(), inputs, strict=True)}
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


class Recommender(nn.Module):
    """Two inputs, one of them of integers; embeddings, a branch of its own, several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 12)
        self.body = nn.Sequential(KroneckerDual((4, 6), (3, 5), rank=2), nn.GELU(), nn.Dropout(0.5))
        self.norm = nn.LayerNorm(15)
        self.head = KroneckerLinear((3, 5), (1, 2))

    def forward(self, items: Tensor, dense: Tensor) -> dict[str, Any]:
        mixed = torch.cat([self.embed(items).mean(1), dense], 1)
        hidden = self.norm(self.body(mixed))
        return {"score": self.head(hidden), "parts": (hidden, items.max(1).values)}


@pytest.mark.parametrize("by_name", [False, True])
def test_several_inputs_integers_among_them_and_several_outputs(by_name: bool) -> None:
    torch.manual_seed(0)
    module = Recommender()
    items, dense = torch.randint(0, 10, (5, 3)), torch.randn(5, 12)
    model = to_onnx(module, {"dense": dense, "items": items} if by_name else (items, dense))
    assert module.training
    assert [each.name for each in model.graph.input] == (["dense", "items"] if by_name else ["items", "dense"])
    module.eval()
    for size in (1, 2, 5):
        inputs = (dense[:size], items[:size]) if by_name else (items[:size], dense[:size])
        got = run(model, *inputs)
        with torch.no_grad():
            want = module(items[:size], dense[:size])
        assert list(got) == ["score", "parts_0", "parts_1"]
        np.testing.assert_allclose(got["score"], want["score"].numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(got["parts_0"], want["parts"][0].numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(got["parts_1"], want["parts"][1].numpy())


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(6, 3), (4, 6)),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)),
            (1, 3, 8, 8),
        ),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (3, 5, 8)),
        (nn.Identity(), (2, 3)),
        (nn.Sequential(nn.Linear(6, 3), nn.Tanh()).double(), (4, 6)),
    ],
    ids=["linear", "convolutions", "transformer", "identity", "float64"],
)
def test_modules_of_torch(module: nn.Module, shape: tuple[int, ...]) -> None:
    dtype = next((each.dtype for each in module.parameters()), torch.float32)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    model = to_onnx(module, x, metadata={"made by": "a test", "note": "ä"})
    assert {each.key: each.value for each in model.metadata_props} == {"made by": "a test", "note": "ä"}
    (name,) = (each.name for each in model.graph.input)
    assert name == "input"
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    x = x.repeat(3, *(1 for _ in shape[1:]))
    with torch.no_grad():
        want = module.eval()(x)
    np.testing.assert_allclose(run(model, x)["output"], want.numpy(), rtol=1e-4, atol=1e-5)


def test_nothing_of_the_callers_is_changed() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    broken = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
    module[1].eval()
    modes = [each.training for each in module.modules()]
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    logger = logging.getLogger("torch.onnx")
    level, filters = logger.level, list(warnings.filters)
    random = torch.get_rng_state()
    x = torch.randn(3, 4, requires_grad=True, generator=torch.Generator().manual_seed(0))
    to_onnx(module, x)
    with torch.no_grad():
        broken[0].weight.fill_(torch.nan)  # type: ignore[operator]  # a linear layer's
    with pytest.raises(ExportError, match="output at batch 1 differs from torch by up to nan"):
        to_onnx(broken, x)
    assert [each.training for each in module.modules()] == modes
    assert all(each.training for each in broken.modules())
    assert (logger.level, list(warnings.filters)) == (level, filters)
    assert torch.equal(torch.get_rng_state(), random)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_impossible_inputs_and_modules() -> None:
    module = nn.Bilinear(2, 3, 4)
    with pytest.raises(ValueError, match=r"batches of the same size, at least 1, got .*3.*4"):
        to_onnx(module, (torch.ones(3, 2), torch.ones(4, 3)))
    with pytest.raises(ValueError, match=r"at least 1, got .*0"):
        to_onnx(nn.Linear(2, 3), torch.ones(0, 2))
    with pytest.raises(ValueError, match="got a scalar for 'input'"):
        to_onnx(nn.Linear(2, 3), torch.tensor(1.0))
    with pytest.raises(ValueError, match="at least one tensor, got none"):
        to_onnx(nn.Linear(2, 3), ())
    with pytest.raises(TypeError, match="must be tensors, got list for 'input'"):
        to_onnx(nn.Linear(2, 3), ([1.0, 2.0],))  # type: ignore[arg-type]  # which is the point

    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ExportError, match=r"torch can't export Branching to ONNX: .+"):
        to_onnx(Branching(), torch.ones(2, 3))

    class Describing(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Any]:
            return {"x": x, "text": "a description"}

    with pytest.raises(ExportError, match="must give tensors, got str among its outputs"):
        to_onnx(Describing(), torch.ones(2, 3))
