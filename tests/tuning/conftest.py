"""One micro model for all tests of tuning, and a small file of data."""

from __future__ import annotations

from pathlib import Path

import pytest
from micro import write_micro


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a micro model."""
    return write_micro(tmp_path_factory.mktemp("micro"))


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty questions with short answers."""
    path = tmp_path_factory.mktemp("data") / "colours.csv"
    things = [f"{size} {thing}" for size in ("big", "old", "wet", "new", "odd") for thing in ("cat", "dog", "hat", "cup", "car", "box", "pen", "bed")]
    rows = [f"What about the {thing}?,{'red' if number % 2 else 'blue'}" for number, thing in enumerate(things)]
    path.write_text("\n".join(["Prompt,Completion", *rows, ""]), encoding="utf-8")
    return path
