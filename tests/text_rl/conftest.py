"""A micro model, and one that has been taught three words."""

from __future__ import annotations

from pathlib import Path

import pytest
from speakers import fresh, teach_words, write_micro


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_micro(tmp_path_factory.mktemp("micro"))


@pytest.fixture(scope="session")
def taught(micro: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory, policy = tmp_path_factory.mktemp("taught"), fresh(micro)
    teach_words(policy)
    policy.save(directory)
    return directory
