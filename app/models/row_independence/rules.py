"""The rules of all operators that are analysed, and the operators that are known to mix rows."""

from collections.abc import Mapping

from app.models.row_independence import (
    arithmetic,
    classical,
    elementwise,
    indexing,
    linear,
    networks,
    reductions,
    shaping,
)
from app.models.row_independence.node import Rule

RULES: Mapping[tuple[str, str], Rule] = {
    **elementwise.RULES,
    **shaping.RULES,
    **linear.RULES,
    **reductions.RULES,
    **indexing.RULES,
    **networks.RULES,
    **classical.RULES,
}
# On sizes that are known element by element, these are tried before the rule of the operator.
ARITHMETIC: Mapping[str, arithmetic.Evaluate] = arithmetic.RULES

_QUANTIZES = "computes its scale over all rows"
_POSITIONS = "returns the positions of elements in the whole batch"
_PADS = "pads every row to the longest one"
MIXING: Mapping[tuple[str, str], str] = {
    ("", "DynamicQuantizeLinear"): _QUANTIZES,
    ("com.microsoft", "DynamicQuantizeMatMul"): _QUANTIZES,
    ("com.microsoft", "DynamicQuantizeLSTM"): _QUANTIZES,
    ("", "NonZero"): _POSITIONS,
    ("", "Unique"): "lists the different values of all rows",
    ("", "NonMaxSuppression"): "returns as many boxes as it selects from all rows",
    ("", "StringSplit"): _PADS,
    ("com.microsoft", "Tokenizer"): _PADS,
    ("", "StringNormalizer"): "removes words from the list of all of them",
    ("", "MaxUnpool"): "writes to positions that count from the first row",
}
RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
