"""Faults of a file, gathered so that a person mends them all at once."""

from __future__ import annotations

from pathlib import Path

from framework.errors import DataError

SHOWN = 20  # faults that a message lists
MAX_FAULTS = 1_000  # at which reading stops: the file is of another kind than was thought


class Faults:
    """What is wrong with a file.

    Args:
        path: the file.
        unit: how its rows are counted: line or row.
    """

    def __init__(self, path: Path, unit: str = "line") -> None:
        self.path, self.unit = path, unit
        self.found: list[str] = []

    def place(self, number: int) -> str:
        """Where a row stands, for messages to people."""
        return f"{self.path.name}, {self.unit} {number}"

    def add(self, number: int, field: str, rule: str, remedy: str) -> None:
        """Notes a fault.

        Args:
            number: of the line or row; 0 where the file as a whole is meant.
            field: the column or key; empty where the row as a whole is meant.
            rule: what is the matter.
            remedy: what to do.

        Raises:
            DataError: there are so many that reading on tells nothing new.
        """
        place = ", ".join(filter(None, [f"{self.unit} {number}" if number else "", field]))
        self.found.append(f"{place}: {rule}. {remedy}" if place else f"{rule}. {remedy}")
        if len(self.found) >= MAX_FAULTS:
            self.check()

    def check(self) -> None:
        """Ends the reading where there are faults.

        Raises:
            DataError: the first `SHOWN` faults and the number of the others.
        """
        if not self.found:
            return
        if len(self.found) == 1:
            raise DataError(f"{self.path}: {self.found[0]}")
        hidden = len(self.found) - SHOWN
        more = "at least " if len(self.found) >= MAX_FAULTS else ""
        rest = [f"  and {more}{hidden} more"] if hidden > 0 else []
        raise DataError("\n".join([f"{self.path}: {more}{len(self.found)} faults", *(f"  {fault}" for fault in self.found[:SHOWN]), *rest]))
