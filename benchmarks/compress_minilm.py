"""The sentence encoder all-MiniLM-L6-v2 as a torch module: BERT with six layers of width 384."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, INNER, HEADS, LAYERS, WORDS, POSITIONS = 384, 1536, 12, 6, 30522, 512
EPSILON = 1e-12
# Names of the parameters in the file, by those of this module.
NAMES = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "types": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "attended": "attention.output.LayerNorm",
    "wide": "intermediate.dense",
    "narrow": "output.dense",
    "fed": "output.LayerNorm",
}


class Block(nn.Module):
    """Attention and feed-forward layers, each with a residual and a normalisation behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.attended, self.fed = (nn.LayerNorm(WIDTH, EPSILON) for _ in range(2))
        self.wide, self.narrow = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (each(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in (self.query, self.key, self.value))
        scores = q @ k.transpose(-1, -2) * (WIDTH // HEADS) ** -0.5 + mask  # (batch, heads, tokens, tokens)
        y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = self.attended(x + self.out(y))
        z: Tensor = self.fed(x + self.narrow(F.gelu(self.wide(x))))
        return z


class MiniLM(nn.Module):
    """Encoder of sentences: the mean of their tokens' last states, of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions, self.types = (nn.Embedding(n, WIDTH) for n in (WORDS, POSITIONS, 2))
        self.norm = nn.LayerNorm(WIDTH, EPSILON)
        self.layers = nn.ModuleList(Block() for _ in range(LAYERS))

    @classmethod
    def load(cls, path: Path) -> MiniLM:
        stored = load_file(path)
        network = cls()
        state = {}
        for name in network.state_dict():
            *layer, own, kind = name.split(".")
            place = "" if not layer else f"encoder.layer.{layer[1]}."
            state[name] = stored[f"{place}{NAMES[own]}.{kind}"]
        network.load_state_dict(state)
        return network.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        place = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.norm(self.words(input_ids) + self.positions(place) + self.types.weight[0])
        mask = (1.0 - attention_mask[:, None, None].float()) * -1e4
        for layer in self.layers:
            x = layer(x, mask)
        weight = attention_mask[..., None].float()
        return F.normalize((x * weight).sum(1) / weight.sum(1), dim=-1)
