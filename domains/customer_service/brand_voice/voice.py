"""How brands speak: the card of a brand, sentences said in its voice, and whether a text is in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

WORDINGS = Path(__file__).parent / "wordings"

# what a message may hold -> as one person says it in full and in short, and as several do
_FORMS: Mapping[str, tuple[str, str, str, str]] = {
    "I": ("I", "I", "we", "we"),
    "me": ("me", "me", "us", "us"),
    "my": ("my", "my", "our", "our"),
    "I was": ("I was", "I was", "we were", "we were"),
    "I am": ("I am", "I'm", "we are", "we're"),
    "I have": ("I have", "I've", "we have", "we've"),
    "I will": ("I will", "I'll", "we will", "we'll"),
    **{full: (full, short, full, short) for full, short in (("it is", "it's"), ("that is", "that's"), ("you are", "you're"), ("you will", "you'll"))},
    **{full: (full, short, full, short) for full, short in (("cannot", "can't"), ("will not", "won't"))},
    **{full: (full, full.replace(" not", "n't")) * 2 for full in ("do not", "did not", "is not", "could not", "has not")},  # type: ignore[dict-item]
}
_SPELLINGS = {  # British, American
    "apologise": "apologize",
    "cancelled": "canceled",
    "catalogue": "catalog",
    "centre": "center",
    "colour": "color",
    "favourite": "favorite",
    "grey": "gray",
    "organised": "organized",
    "recognise": "recognize",
}
_SINGULAR, _PLURAL = re.compile(r"\b(?:I|me|my)\b", re.IGNORECASE), re.compile(r"\b(?:we|us|our)\b", re.IGNORECASE)
_SHORT = re.compile(r"\b(?:\w+n't|\w+'(?:m|re|ve|ll)|it's|that's)(?!\w)", re.IGNORECASE)
_FULL = re.compile(rf"\b(?:{'|'.join({form[side] for form in _FORMS.values() for side in (0, 2) if form[side] != form[side + 1]})})\b", re.IGNORECASE)
_EMOJI = re.compile("[\u2600-\u27bf\U0001f300-\U0001faff]")


@dataclass(frozen=True)
class Style:
    """What of a voice shows in single words."""

    person: str  # I or we
    contractions: bool
    spelling: str  # American or British
    instead: Mapping[str, str]  # a word that is never said -> what is said instead


@dataclass(frozen=True)
class Card(Style):
    """A brand's voice."""

    name: str
    words: Sequence[int]  # fewest and most of a message
    mark: str  # an emoji or an exclamation mark after the message, or nothing
    greeting: str
    sign_off: str
    held_out: bool = False

    def __str__(self) -> str:
        few, many = self.words
        lines = [
            f"Voice of {self.name}: says {self.person}",
            f"{'uses' if self.contractions else 'no'} contractions",
            f"{self.spelling} spelling",
            f"at least {few} words" if few else f"at most {many} words",
            *(f"never {word} but {better}" for word, better in self.instead.items()),
            {"": "no emoji and no exclamation mark", "!": "one exclamation mark"}.get(self.mark, f"one {self.mark}"),
            f'opens with "{self.greeting}"' if self.greeting else "no greeting",
            f'signs "{self.sign_off}"' if self.sign_off else "no sign-off",
        ]
        return "; ".join(lines) + "."

    def traits(self, text: str) -> Mapping[str, bool]:
        """Which traits of the voice a text has."""
        text = text.strip().replace("\u2019", "'")
        body = text.removeprefix(self.greeting).removesuffix(self.sign_off)
        other = _SPELLINGS.keys() if self.spelling == "American" else _SPELLINGS.values()
        wanted = {"": (0, 0), "!": (1, 0)}.get(self.mark, (0, 1))
        return {
            "person": not (_PLURAL if self.person == "I" else _SINGULAR).search(body),
            "contractions": not (_FULL if self.contractions else _SHORT).search(body),
            "spelling": not any(_holds(body, word) for word in other),
            "length": self.words[0] <= len(re.findall(r"[\w'#$.-]*\w", text)) <= self.words[1],
            "words": not any(_holds(body, word) for word in self.instead),
            "mark": (text.count("!"), len(_EMOJI.findall(text))) == wanted and self.mark in text,
            "greeting": text.startswith(self.greeting),
            "sign_off": text.endswith(self.sign_off),
        }


@cache
def cards() -> Sequence[Card]:
    """All brands."""
    return [Card(**card) for card in yaml.safe_load((WORDINGS / "cards.yaml").read_text(encoding="utf-8"))]


def say(message: str, style: Style, facts: Mapping[str, str], opens: bool = True) -> str:
    """A message in a style, with its facts; one that opens a text, and not what follows a greeting and a comma, begins with a capital."""
    text = re.sub(r"\{(.*?)\}", lambda slot: _word(slot[1], style, facts), message)
    return text[0].upper() + text[1:] if opens else text


def _word(slot: str, style: Style, facts: Mapping[str, str]) -> str:
    if slot in facts:
        return facts[slot]
    if slot in _FORMS:
        return _FORMS[slot][2 * (style.person == "we") + style.contractions]
    if slot in _SPELLINGS:
        return _SPELLINGS[slot] if style.spelling == "American" else slot
    return style.instead.get(slot, slot)


def _holds(text: str, word: str) -> bool:
    return bool(re.search(rf"\b{word}\b", text, re.IGNORECASE))
