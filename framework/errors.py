"""Errors a user can mend: each says where, which rule, and what to do. `run.py` prints them without a traceback and exits with 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something in the input, not in the program."""


class ConfigError(UserError):
    """A setting that cannot be used: names its place, the rule and a way out."""

    def __init__(self, place: str, rule: str) -> None:
        super().__init__(f"{place}: {rule}")


class MissingExtraError(UserError):
    """A part that needs a package which is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed; it comes with the extra {extra!r}: pip install -c constraints.txt '.[{extra}]'")


class DataError(UserError):
    """A file of data that cannot be used: every fault with its line, field, rule and remedy."""


class CheckpointError(UserError):
    """A checkpoint that is absent, damaged or of another configuration."""


class TrainingError(UserError):
    """A run that must not go on: what was seen, and which setting to try."""


def near(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` and the list of what there is."""
    known = sorted(known)
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return (f"; did you mean {match[0]!r}?" if match else "") + f" (there are: {', '.join(known) or 'none'})"
