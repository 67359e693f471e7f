"""How well does a language model answer? Loss on what it should have said, and scores of what it does say, on held-out rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from framework.interfaces import DataSource, LanguageModel
from framework.statistics import bootstrap_ratio
from framework.types import Conversation, Estimate, Sampling, Tokens

_TOGETHER = 64  # prompts answered side by side


@dataclass(frozen=True)
class Answers:
    """One model on one split."""

    split: str
    loss: Estimate  # nats a token of the completions
    accuracy: Estimate  # share of those tokens that were the likeliest
    scores: Mapping[str, Estimate]  # of what was said, the one that counts first
    said: Sequence[str]  # [rows]

    @property
    def perplexity(self) -> float:
        """Per token."""
        return math.exp(min(self.loss.mean, 50.0))


def read(lm: LanguageModel, examples: Sequence[Tokens]) -> tuple[Estimate, Estimate]:
    """Loss and token accuracy over examples, with intervals over rows."""
    readings = lm.read(examples)
    tokens = [len(reading.nll) for reading in readings]
    return bootstrap_ratio([reading.nll.sum() for reading in readings], tokens), bootstrap_ratio([reading.correct.sum() for reading in readings], tokens)


def answer(lm: LanguageModel, rows: Sequence[Conversation], sampling: Sampling, tell: Callable[[int], None] = lambda done: None) -> list[str]:
    """What a model says to the prompts of some rows; `tell` hears how many are done."""
    said: list[str] = []
    for first in range(0, len(rows), _TOGETHER):
        prompts = [lm.prompt(row.prompt) for row in rows[first : first + _TOGETHER]]
        said += [completions[0].text.strip() for completions in lm.generate(prompts, sampling)]
        tell(len(said))
    return said


def judge_answers(lm: LanguageModel, data: DataSource, split: str, most: int, sampling: Sampling, tell: Callable[[int], None] = lambda done: None) -> Answers:
    """A model on the first `most` rows of a split.

    Args:
        lm: placed.
        data: gives the rows and scores the answers.
        split: which.
        most: rows, at the most.
        sampling: how answers are drawn.
        tell: hears how many rows are answered.
    """
    rows = data.conversations(split)[:most]
    loss, accuracy = read(lm, [lm.encode(row) for row in rows])
    said = answer(lm, rows, sampling, tell)
    return Answers(split, loss, accuracy, data.scores(said, rows), said)
