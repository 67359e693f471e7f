"""What holds for every test."""

from __future__ import annotations

import torch


def pytest_runtest_setup() -> None:
    """One thread, whatever a run in a test before has set: where two share a sum, its last digits hang on what stands where."""
    torch.set_num_threads(1)
