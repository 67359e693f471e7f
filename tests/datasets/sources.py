"""What the tests of data files share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from framework.datasets.source import FileSource

Write = Callable[[str, str | bytes], Path]


def source(path: Path, **settings: Any) -> FileSource:
    """A source that holds nothing out."""
    return FileSource(**{"path": str(path), "validation_share": 0.0, "test_share": 0.0, **settings})
