"""The table of datatypes compared with numpy and ONNX."""

import numpy as np
import pytest
from onnx import helper

from app.inference.datatypes import BF16, BYTES, DATATYPES, DTYPES, NAME_BY_ONNX_TYPE, is_bfloat16
from tests.app.oip_models import TYPES


def test_the_table_has_every_datatype_of_the_tested_models() -> None:
    assert DATATYPES.keys() == TYPES.keys()
    assert {name: each.name for name, each in DATATYPES.items()} == {name: name for name in DATATYPES}
    assert {NAME_BY_ONNX_TYPE[each.onnx_type] for each in DATATYPES.values()} == DATATYPES.keys()


@pytest.mark.parametrize("name", sorted(DATATYPES.keys() - {BYTES}))
def test_numpy_types_and_sizes_agree_with_onnx(name: str) -> None:
    dtype = DTYPES[name]
    assert dtype == helper.tensor_dtype_to_np_dtype(TYPES[name])
    assert dtype == np.dtype(DATATYPES[name].numpy_type)
    assert dtype.itemsize == DATATYPES[name].item_bytes
    assert is_bfloat16(np.zeros(1, dtype)) == (name == BF16)


@pytest.mark.parametrize("name", [BYTES, "FP8", ""])
def test_other_datatypes_have_no_numpy_type_of_fixed_size(name: str) -> None:
    with pytest.raises(KeyError, match=f"^'{name}'$"):
        DTYPES[name]
