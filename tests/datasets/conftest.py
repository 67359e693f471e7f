"""Files to read, written for one test."""

from __future__ import annotations

from pathlib import Path

import pytest
from sources import Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of a given name."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write
