"""What holds for every test."""

from __future__ import annotations

import gc

import torch


def pytest_runtest_setup() -> None:
    """One thread, whatever a run in a test before has set: where two share a sum, its last digits hang on what stands where."""
    torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """What is imported by now stays: a collection of garbage, which every run begins with, need not look through it."""
    gc.freeze()
