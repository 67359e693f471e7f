"""Words that are spelt differently, with their spellings from the package `breame`, and sentences made of them."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from framework.datasets.generated import one
from framework.errors import MissingExtraError
from framework.worlds.wordings import load_bank

WORDINGS = Path(__file__).parent / "wordings"
_TOKEN = re.compile(r"\w+|[^\w\s]")
_VERB = {"base": ("e", ""), "third": ("es", "s"), "past": ("ed",), "ing": ("ing",)}  # form -> endings, the first that is a word counts
_HELD_OUT = 0.3  # of the families of words, for the test split


@dataclass(frozen=True)
class Word:
    """One word in both spellings."""

    british: str
    american: str
    held_out: bool  # whether it is kept for the test split


def tokens(text: str) -> list[str]:
    """Words and marks."""
    return _TOKEN.findall(text)


@cache
def spellings() -> tuple[Mapping[str, str], Mapping[str, str], frozenset[str]]:
    """British to American, American to British, and the words of two meanings.

    Raises:
        MissingExtraError: `breame` is not installed.
    """
    try:
        from breame.data.meaning_constants import DIFFERENT_MEANINGS_US_UK_COMMON
        from breame.data.spelling_constants import AMERICAN_ENGLISH_SPELLINGS, BRITISH_ENGLISH_SPELLINGS
    except ImportError as error:
        raise MissingExtraError("package 'breame'", "customer-service") from error
    return BRITISH_ENGLISH_SPELLINGS, AMERICAN_ENGLISH_SPELLINGS, frozenset(DIFFERENT_MEANINGS_US_UK_COMMON)


@cache
def vocabulary() -> Mapping[str, Sequence[Word]]:
    """The words for each place in a sentence.

    Raises:
        ValueError: a word in words.yaml of which `breame` knows no other spelling, or no second meaning.
    """
    american, _, two_meanings = spellings()
    bank = load_bank(WORDINGS / "words.yaml")
    places = {place: list(bank[place]["words"]) for place in bank if place not in ("verb", "two_meanings")}
    for stem in bank["verb"]["stems"]:
        for form, endings in _VERB.items():
            found = [stem + ending for ending in endings if stem + ending in american]
            places.setdefault(form, []).append(found[0] if found else stem)
    if unknown := [word for words in places.values() for word in words if word not in american] + sorted({*bank["two_meanings"]["words"]} - two_meanings):
        raise ValueError(f"words.yaml: breame has nothing on {', '.join(unknown)}")
    return {
        **{place: [Word(word, american[word], _held_out(word)) for word in words] for place, words in places.items()},
        "two_meanings": [Word(word, word, False) for word in bank["two_meanings"]["words"]],
    }


class Sentence:
    """A sentence in both spellings, with what is of note in it."""

    def __init__(self, frame: str, test: bool, bank: Mapping[str, Sequence[str]], rng: np.random.Generator) -> None:
        self.unseen: list[str] = []
        self.two_meanings: list[str] = []
        self._test, self._bank, self._rng = test, bank, rng
        pieces = [self._fill(piece) if number % 2 else (piece, piece) for number, piece in enumerate(re.split(r"\{(\w+)\}", frame))]
        self.british, self.american = (text[0].upper() + text[1:] for text in map("".join, zip(*pieces, strict=True)))

    def _fill(self, slot: str) -> tuple[str, str]:
        if slot == "n":
            return (str(self._rng.integers(2, 80)),) * 2
        if slot in self._bank:
            return (one(self._bank[slot], self._rng),) * 2
        place = slot.removeprefix("a_")
        held_out = self._test and place != "two_meanings" and self._rng.random() < 0.5
        words = vocabulary()[place]
        pool = [word for word in words if word.held_out == held_out] or words if self._test else [word for word in words if not word.held_out]
        word = pool[int(self._rng.integers(len(pool)))]
        self.unseen += [word.british, word.american] if word.held_out else []
        self.two_meanings += [word.british] if place == "two_meanings" else []
        article = "" if slot == place else "an " if word.british[0] in "aeiou" or word.british.startswith("hono") else "a "
        return article + word.british, article + word.american


def _held_out(word: str) -> bool:
    """One family has one beginning, and all of it is held out or none."""
    return zlib.crc32(word[:5].encode()) / 2**32 < _HELD_OUT
