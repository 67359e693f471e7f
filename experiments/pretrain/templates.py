"""Short dialogues from templates: `talk.yaml` says how it is written."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from framework.types import Conversation, Message

Slots = Mapping[str, Sequence[Any]]  # name -> what may stand there: strings, or records of strings
Turns = Sequence[Sequence[str]]  # the user's first, each with the ways of saying it

_REFERENCE = re.compile(r"<(\^?)([a-z_]+)([2-9]?)(?:\.(\w+))?>")
_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


@cache
def talk() -> Mapping[str, Any]:
    """The bank, with every turn of a dialogue as a tuple of ways of saying it, and the slots of numbers."""
    raw = yaml.safe_load(Path(__file__).with_name("talk.yaml").read_text(encoding="utf-8"))
    spoken = {part: {name: [_turns(dialogue) for dialogue in dialogues] for name, dialogues in raw[part].items()} for part in ("dialogues", "reading")}
    return {"slots": raw["slots"] | numbers(), "system": raw["system"], "frames": raw["frames"], "samples": raw["samples"], **spoken}


def fill(template: str, slots: Slots, drawn: dict[str, list[Any]], rng: random.Random) -> str:
    """A template with its references replaced.

    Args:
        template: see `talk.yaml`.
        slots: to draw from.
        drawn: what has been drawn in this dialogue so far; it is added to.
        rng: of the draws.
    """

    def draw(found: re.Match[str]) -> str:
        capital, name, number, field = found.groups()
        values = drawn.setdefault(name, rng.sample(slots[name], min(9, len(slots[name]))))
        value = values[(int(number or 1) - 1) % len(values)]
        text = str(value[field] if field else value)
        return _capital(text) if capital else text

    return _REFERENCE.sub(draw, template)


def exchange(turns: Turns, slots: Slots, rng: random.Random) -> list[Message]:
    """One drawing of a dialogue."""
    drawn: dict[str, list[Any]] = {}
    said = [fill(rng.choice(ways), slots, drawn, rng) for ways in turns]
    return [Message("assistant", text) if number % 2 else Message("user", _capital(text) if rng.random() < 0.8 else text) for number, text in enumerate(said)]


def dialogues(slots: Slots, rng: random.Random) -> Iterator[Conversation]:
    """Endless dialogues of one to three exchanges."""
    kinds = list(talk()["dialogues"].values())
    while True:
        chosen = [rng.choice(rng.choice(kinds)) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        yield Conversation([*system(rng), *(message for turns in chosen for message in exchange(turns, slots, rng))])


def system(rng: random.Random, share: float = 0.15) -> list[Message]:
    """Now and then a system message that any answer fits."""
    return [Message("system", rng.choice(talk()["system"]))] if rng.random() < share else []


def numbers() -> dict[str, list[dict[str, str]]]:
    """Slots of small arithmetic, in digits and (capital field names) in words."""
    sums = [(a, b) for a in range(21) for b in range(21 - a)]
    return {
        "sum": [{"a": str(a), "b": str(b), "c": str(a + b), "A": word(a), "B": word(b), "C": word(a + b)} for a, b in sums],
        "order": [{"small": str(a), "large": str(b)} for b in range(31) for a in range(b)],
        "next": [{"is": str(a), "after": str(a + 1), "IS": word(a), "AFTER": word(a + 1)} for a in range(99)],
        "double": [{"a": str(a), "b": str(2 * a)} for a in range(11)],
        "count": [
            {
                "n": str(n),
                "N": word(n),
                "words": ", ".join(map(word, range(1, n + 1))),
                "digits": ", ".join(map(str, range(1, n + 1))),
                "down": ", ".join(map(str, range(n, 0, -1))),
            }
            for n in range(2, 21)
        ],
    }


def word(number: int) -> str:
    """A number below a hundred in words."""
    if number < 20:
        return _ONES[number]
    tens, ones = divmod(number, 10)
    return _TENS[tens - 2] + (f"-{_ONES[ones]}" if ones else "")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _turns(dialogue: Sequence[str]) -> Turns:
    return tuple(tuple(way.strip() for way in turn.split(" | ")) for turn in dialogue)
