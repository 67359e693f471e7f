"""From a row of a file to a preference, or to the faults that forbid it.

A row holds `prompt`, `chosen` and `rejected`, each a text or a list of messages: the layout that trainers of reward models and of direct
preference optimisation read. Lists may bring the prompt themselves: then what both begin with, up to a user's message, is the prompt.
What follows may run over several turns. `label`, `probability` and `margin` are those of `Preference`; what else a row holds is kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from framework.datasets.faults import Faults
from framework.datasets.layout import Layout
from framework.datasets.readers import kind
from framework.datasets.rows import amiss_text, as_text, grammar, listed, refuse_tools
from framework.errors import near
from framework.types import Conversation, Message, Preference

SIDES = ("chosen", "rejected")
COLUMNS = ("prompt", *SIDES)
NUMBERS = {"label": (0.0, 1.0), "probability": (0.0, 1.0), "margin": (-math.inf, math.inf)}  # that may be given, and their range
NAMES = (*COLUMNS, *NUMBERS)


def pairs(system: str | None) -> Layout[Preference]:
    """Rows of preferences; with a system prompt for those that bring none."""
    example = '{"prompt": ..., "chosen": ..., "rejected": ...}, each a text or a list of messages'
    return Layout((COLUMNS, SIDES), NAMES, "prompt, chosen and rejected", example, partial(preference, system=system))


def preference(number: int, row: Mapping[str, Any], faults: Faults, system: str | None) -> Preference | None:
    """What a row says; None, and faults, where that cannot be.

    Args:
        number: of the line or row.
        row: its values by name, known names in lower case.
        faults: takes what is wrong.
        system: the system prompt of rows that bring none.
    """
    before = len(faults.found)
    said = {name: _messages(number, row, name, faults) for name in COLUMNS if name != "prompt" or row.get(name) is not None}
    numbers = {name: _number(number, row, name, faults) for name in NUMBERS if row.get(name) not in (None, "")}
    refuse_tools(number, row, faults)
    if len(faults.found) > before:
        return None
    prompt = said["prompt"] if "prompt" in said else _shared(number, said, row, faults)
    if prompt and prompt[-1].role != "user":
        faults.add(number, "prompt", f"ends with a message of {prompt[-1].role}", "End with a user's message, which chosen and rejected answer")
    prompt = [replace(message, weight=0.0) if message.role == "assistant" else message for message in prompt]
    turns = {side: [*prompt, *_after(prompt, said[side])] for side in SIDES}
    for side, messages in turns.items():
        if len(faults.found) == before and (amiss := grammar(messages)):
            faults.add(number, side, *amiss)
    if len(faults.found) > before:
        return None
    first = [Message("system", system)] if system is not None and prompt[0].role != "system" else []
    fields = {name: as_text(value) for name, value in row.items() if name not in NAMES and value is not None}
    chosen, rejected = (Conversation((*first, *turns[side]), faults.place(number), fields) for side in SIDES)
    return Preference(chosen, rejected, **numbers)


def _messages(number: int, row: Mapping[str, Any], name: str, faults: Faults) -> list[Message]:
    """The messages of a prompt or a side."""
    if row.get(name) is None:
        faults.add(number, name, f"is missing{near(name, row.keys() - set(NAMES))}", "Give every row a prompt, chosen and rejected")
    elif isinstance(row[name], list):
        return listed(number, row[name], name, faults)
    elif amiss := amiss_text(row[name]):
        faults.add(number, name, *amiss)
    else:
        return [Message("user" if name == "prompt" else "assistant", row[name])]
    return []


def _number(number: int, row: Mapping[str, Any], name: str, faults: Faults) -> float:
    """A label, probability or margin; in CSV it is a text."""
    low, high = NUMBERS[name]
    try:
        value = float(row[name]) if isinstance(row[name], str | int | float) and not isinstance(row[name], bool) else math.nan
    except (ValueError, OverflowError):
        value = math.nan
    if math.isfinite(value) and low <= value <= high:
        return value
    given = repr(row[name]) if isinstance(row[name], str | int | float) else kind(row[name])
    rule = f"{given[:40]} is no number" + (f" from {low:g} to {high:g}" if math.isfinite(low) else "")
    faults.add(number, name, rule, "Correct it, leave it empty, or give the column another name if it means something else")
    return math.nan


def _shared(number: int, said: Mapping[str, Sequence[Message]], row: Mapping[str, Any], faults: Faults) -> list[Message]:
    """The prompt of a row that has none of its own: what both sides begin with, up to a user's message."""
    both = list(zip(*(said[side][:-1] for side in SIDES), strict=False))
    same = next((place for place, (one, other) in enumerate(both) if not _alike(one, other)), len(both))
    while same and both[same - 1][0].role != "user":
        same -= 1
    if not same:
        lists = all(isinstance(row[side], list) for side in SIDES)
        rule = "is missing, and chosen and rejected do not begin with the same messages" if lists else f"is missing{near('prompt', row.keys() - set(NAMES))}"
        faults.add(number, "prompt", rule, "Give every row a prompt, or begin both lists with it")
    return [one for one, _ in both[:same]]


def _after(prompt: Sequence[Message], said: Sequence[Message]) -> Sequence[Message]:
    """A side without the prompt, which some files repeat there."""
    repeated = len(said) > len(prompt) and all(map(_alike, prompt, said))
    return said[len(prompt) :] if repeated else said


def _alike(one: Message, other: Message) -> bool:
    return (one.role, one.content) == (other.role, other.content)
