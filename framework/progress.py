"""How far along: a bar with rate and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

_EVERY = 10.0  # seconds between lines where there is no terminal


class Tell(Protocol):
    """Told how much is done, and perhaps a short note."""

    def __call__(self, now: int, note: str = "") -> None:
        """Shows it."""
        ...


@contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Tell]:
    """Yields a function of how much is done and a short note to show with it.

    Args:
        title: what is under way.
        total: how much there is to do.
        done: how much was done before.
    """
    console = Console()
    start, first = time.monotonic(), done

    def rate(now: int) -> str:
        """So many a second since the last time that nothing had been done yet: preparing is no measure of what follows."""
        nonlocal start
        if now == first:
            start = time.monotonic()
            return ""
        each = (time.monotonic() - start) / (now - first)
        return f", {1 / max(each, 1e-9):,.0f}/s, {(total - now) * each:,.0f} s left"

    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
        with Progress(*columns, TextColumn("{task.fields[note]}"), console=console) as bars:
            task = bars.add_task(title, total=total, completed=done, rate="", note="")
            yield lambda now, note="": bars.update(task, completed=now, rate=rate(now).removeprefix(", "), **({"note": note} if note else {}))
        return
    last = start

    def tell(now: int, note: str = "") -> None:
        nonlocal last
        told = rate(now)
        if time.monotonic() - last >= _EVERY:
            last = time.monotonic()
            print(f"{title}: {now:,} of {total:,}{told} {note}".rstrip(), flush=True)

    yield tell
