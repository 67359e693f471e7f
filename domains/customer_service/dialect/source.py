"""Sentences to be put into the other spelling of English, with words that must stay as they are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher

import numpy as np

from domains.customer_service.dialect.words import WORDINGS, Sentence, spellings, tokens
from framework.config import NonNegativeCount
from framework.datasets.generated import GeneratedSource, Sizes, one
from framework.statistics import bootstrap
from framework.types import Conversation, Estimate, Message
from framework.worlds.wordings import bank_of

_KINDS = (("differs",), ("differs", "same"), ("same", "differs"), ("differs", "differs"), ("same", "same"))


class Dialect(GeneratedSource):
    """A sentence or two in American or British spelling, answered in the other; spellings are those of the package `breame`.

    Args:
        sizes: rows of each split; the test split has other sentences, and half of its words are of families that training never shows.
        seed: of what is written.
    """

    name = "dialect"

    def __init__(self, sizes: Sizes, seed: NonNegativeCount) -> None:
        super().__init__(sizes, seed)

    def write(self, split: str, rng: np.random.Generator) -> Iterator[Conversation]:
        """Rows whose fields list words that training never shows (`unseen`) and words of two meanings, which stay (`two_meanings`)."""
        bank = {name: group["plain"] for name, group in bank_of(WORDINGS, split).items()}
        while True:
            kinds = _KINDS[int(rng.integers(len(_KINDS)))]
            said = [Sentence(one(bank[kind], rng), split == "test", bank, rng) for kind in kinds]
            british, american = (" ".join(getattr(sentence, dialect) for sentence in said) for dialect in ("british", "american"))
            wanted, given, answer = ("American", british, american) if rng.random() < 0.5 else ("British", american, british)
            yield Conversation(
                (
                    Message("system", f"Put this into {wanted} spelling and change nothing else."),
                    Message("user", given),
                    Message("assistant", answer),
                ),
                fields={name: " ".join(word for sentence in said for word in getattr(sentence, name)) for name in ("unseen", "two_meanings")},
            )

    def scores(self, answers: Sequence[str], asked: Sequence[Conversation]) -> Mapping[str, Estimate]:
        """`right`: every word and mark as it ought to be.

        Of rows that have such words, the share of them that is right: `converted` (had to change), `untouched` (had to stay),
        `two_meanings` (had to stay, and mean something else across the ocean), `unseen` (had to change, never shown in training).
        """
        shares: defaultdict[str, list[float]] = defaultdict(list)
        for answer, row in zip(answers, asked, strict=True):
            given, due, said = tokens(row.prompt[-1].content), tokens(row.completion), tokens(answer)
            shares["right"].append(due == said)
            blocks = SequenceMatcher(a=due, b=said, autojunk=False).get_matching_blocks()
            kept = {number for block in blocks for number in range(block.a, block.a + block.size)}
            changes = {number for number, (before, after) in enumerate(zip(given, due, strict=True)) if before != after}
            unseen, two_meanings = (set(row.fields[name].split()) for name in ("unseen", "two_meanings"))
            groups = {
                "converted": changes,
                "untouched": set(range(len(due))) - changes,
                "two_meanings": {number for number, word in enumerate(due) if word in two_meanings},
                "unseen": {number for number in changes if due[number].lower() in unseen},
            }
            for name, places in groups.items():
                if places:
                    shares[name].append(len(places & kept) / len(places))
        return {name: bootstrap(values) for name, values in shares.items()}

    def baselines(self, split: str) -> Mapping[str, Sequence[str]]:
        """The controls; `copy`: the sentence as it is; `lookup`: word by word as in training; `dictionary`: as in all of `breame`."""
        rows = self.conversations(split)
        british, american, _ = spellings()
        return {
            **super().baselines(split),
            "copy": [row.prompt[-1].content for row in rows],
            "lookup": _word_by_word(rows, self._learnt()),
            "dictionary": _word_by_word(rows, {"American": british, "British": american}),
        }

    def _learnt(self) -> Mapping[str, Mapping[str, str]]:
        """What training rows make of each word most often, by the spelling that was wanted."""
        seen: defaultdict[str, defaultdict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
        for row in self.conversations("train"):
            for before, after in zip(tokens(row.prompt[-1].content.lower()), tokens(row.completion.lower()), strict=True):
                seen[_wanted(row)][before][after] += 1
        return {wanted: {word: counts.most_common(1)[0][0] for word, counts in words.items()} for wanted, words in seen.items()}


def _wanted(row: Conversation) -> str:
    return "American" if "American" in row.prompt[0].content else "British"


def _word_by_word(rows: Sequence[Conversation], tables: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Every word replaced as a table has it, with its capital kept."""
    answers = []
    for row in rows:
        table, given = tables[_wanted(row)], row.prompt[-1].content
        words = [table.get(token.lower(), token) for token in tokens(given)]
        said = [word.capitalize() if token[0].isupper() else word for token, word in zip(tokens(given), words, strict=True)]
        answers.append(" ".join(said))  # scored by words and marks, so spaces do not matter
    return answers
