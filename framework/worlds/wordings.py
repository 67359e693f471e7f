"""Wordings: the many ways a world says one thing, kept apart by split so that reading can be told from memorising.

A bank is a YAML file `topic -> value -> [utterances]`. The training bank and the test bank of a world share no utterance and,
topic by topic, no *content word* (`lexicon_overlap`): whoever understands the language reads both, whoever counts words reads one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import yaml

Bank = Mapping[str, Mapping[str, tuple[str, ...]]]

# Closed classes: grammar, numbers and units of time. Two sentences may share these and still share no vocabulary.
FUNCTION_WORDS = frozenset(
    """
    a about above after again against all almost also although always am among an and any anybody anyone anything are aren as at back be
    because been before being below between both but by can cannot could couldn d did didn do does doesn doing don done down during each
    either else enough even ever every everybody everyone everything few for from further get gets getting give go goes going gone got had
    hadn has hasn have haven having he her here hers him his how however i if in instead into is isn it its itself just keep kept know least
    less let ll m made make makes many may maybe me might mightn mine more most much must mustn my myself neither never no nobody none nor
    not nothing now of off often on once one ones only onto or other others ought our ours ourselves out over own perhaps put quite rather
    re really s same say see seem seems shall she should shouldn since so some somebody someone something sometimes still such t take taken
    than that the their theirs them then there these they thing things think this those though through to too toward towards under until up
    upon us use used usually ve very want was wasn way we well were weren what whatever when whenever where whether which while who whoever
    whole whom whose why will with within without won would wouldn yet you your yours yourself zero two three four five six seven eight nine
    ten eleven twelve fifteen sixteen eighteen twenty thirty forty fifty sixty hundred thousand day days week weeks month months year years
    decade decades
    """.split()
)

UNSEEN = ("test", "real_unseen")
"""Splits whose wordings are never trained on."""

_REHEARSED = 5  # of so many wordings one is held out
_WORD = re.compile(r"[a-z]+")
_ENDING = re.compile(r"(?<=[a-z]{3})(?:ings?|ed|es|s|ly)$")


def content_words(text: str) -> frozenset[str]:
    """The words of `text` that carry meaning, lower-cased and stripped of the commonest English endings."""
    return frozenset(_ENDING.sub("", word) for word in _WORD.findall(text.lower()) if word not in FUNCTION_WORDS)


def lexicon(utterances: Iterable[str]) -> frozenset[str]:
    """All content words of some utterances."""
    return frozenset().union(*(content_words(utterance) for utterance in utterances))


def lexicon_overlap(train: Bank, test: Bank) -> dict[str, frozenset[str]]:
    """Content words that the test bank of a topic shares with its training bank; empty where the split is clean."""
    shared = {}
    for topic in test:
        known, unseen = (lexicon(u for values in bank[topic].values() for u in values) for bank in (train, test))
        if known & unseen:
            shared[topic] = known & unseen
    return shared


@cache
def load_bank(path: Path) -> Bank:
    """Reads a bank from YAML, once; a topic or value without utterances is an error."""
    with path.open(encoding="utf-8") as file:
        raw = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    bank = {topic: {str(value): tuple(utterances) for value, utterances in values.items()} for topic, values in raw.items()}
    for topic, values in bank.items():
        for value, utterances in values.items():
            if not utterances or not all(isinstance(u, str) and u.strip() == u and u and "\n" not in u for u in utterances):
                raise ValueError(f"{path}: {topic}.{value}: expected a list of one-line utterances")
    return bank


def bank_of(folder: Path, split: str, rehearsal: bool = False) -> Bank:
    """What is said in a split: `test.yaml` in those of unseen wordings, `train.yaml` in all others.

    In a rehearsal nothing is taken from `test.yaml`: every fifth training wording is held out, and stands in for it.
    """
    unseen = split in UNSEEN
    if not rehearsal:
        return load_bank(folder / ("test.yaml" if unseen else "train.yaml"))
    bank = load_bank(folder / "train.yaml")
    return {topic: {value: _part(utterances, unseen) for value, utterances in values.items()} for topic, values in bank.items()}


def _part(utterances: tuple[str, ...], held_out: bool) -> tuple[str, ...]:
    """A fifth of them, or the others; all where there are too few to part."""
    return tuple(said for number, said in enumerate(utterances) if (number % _REHEARSED == _REHEARSED - 1) is held_out) or utterances


def pick(wordings: Sequence[str], n: int, chance: float) -> tuple[list[str], float]:
    """`n` different wordings (fewer if there are no more) by one number in [0, 1), and the chance left over for a next choice."""
    left, chosen = list(wordings), []
    for _ in range(min(n, len(left))):
        number, chance = divmod(chance * len(left), 1)
        chosen.append(left.pop(int(number)))
    return chosen, chance
