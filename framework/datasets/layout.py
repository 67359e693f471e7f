"""What the rows of a file hold, as its reader needs to know it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from framework.datasets.faults import Faults

Row = TypeVar("Row")


@dataclass(frozen=True)
class Layout(Generic[Row]):
    """A kind of rows.

    Attributes:
        columns: sets of columns; a table has all of one of them. CSV holds nothing but texts, so the first.
        names: known in any case, as `Prompt`.
        content: what a row is made of, in words.
        example: a row in JSON, for messages to people.
        row: takes the number of the line or row, its values by name (known names in lower case) and faults; gives the row, or None and faults.
    """

    columns: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]
    content: str
    example: str
    row: Callable[[int, Mapping[str, Any], Faults], Row | None]

    def canonical(self, name: str) -> str:
        """A known name in lower case, any other unchanged."""
        return name.casefold() if name.casefold() in self.names else name
