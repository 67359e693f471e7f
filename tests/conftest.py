"""What holds for every test."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def float32_unless_asked() -> Iterator[None]:
    """`auto` is float32 in this process on any machine, for what numbers are held against is computed so; `dtype="bfloat16"` is what it says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("framework.precision.bfloat16_if_fast", lambda device: torch.float32)
        yield


def pytest_runtest_setup() -> None:
    """One thread, whatever a run in a test before has set: where two share a sum, its last digits hang on what stands where."""
    torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """What is imported by now stays: a collection of garbage, which every run begins with, need not look through it."""
    gc.freeze()
