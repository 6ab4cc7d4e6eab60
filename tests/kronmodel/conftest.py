from collections.abc import Iterator

import pytest
import torch

from kronmodel.data.dataset import Dataset
from kronmodel.data.registry import load


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The tensors here are small: more threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """The 5,000 genuine digits: small enough for unit tests."""
    return load("mnist-5k", lambda line: None)
