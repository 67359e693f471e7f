"""The server that stands in for a model's endpoint."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chat_server import Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    """Running, on a free port of this machine."""
    with serving() as state:
        yield state
