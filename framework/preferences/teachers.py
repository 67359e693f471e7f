"""Simulated annotators, who say which of two segments they like better and how likely they were to say so.

A teacher goes by the true worth of what it sees, its gold, and errs as people do (B-Pref; Lee et al., 2021, whose order of events this
is): it skips what is too bad to judge, calls what is nearly equal a tie, sees the end more clearly than the beginning, prefers the better
one with the chance of Bradley and Terry, and now and then names the other one by mistake. Two tastes that have nothing to do with worth
may be added: for length, and for courtesy.

    utility = sum_t discount^(T-1-t) gold_t / spread + length_bias log2(words) + style_bias courtesy
    p = sigmoid(beta (utility_1 - utility_2));  P(first) = (1 - mistake) p + mistake (1 - p)

Gold counts in spreads, standard deviations of the gold return over a pool of segments, so that a teacher means the same in every world.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from framework.config import Fraction, NonNegative
from framework.types import Floats

Rationality = Annotated[float, Field(gt=0)]  # infinity is allowed
Bias = Annotated[float, Field(allow_inf_nan=False)]

_SAME = 1e-9  # spreads by which utilities may differ through rounding
_COURTESY = re.compile(r"\b(?:please|thanks?|glad|happy|pleasure|welcome|sorry|of course|certainly|gladly)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Segment:
    """What a teacher is shown of an episode.

    Attributes:
        gold: what each turn was truly worth, `[T]`, in the world's unit.
        words: that the assistant said.
        courtesy: share of the assistant's messages that were courteous.
    """

    gold: Floats
    words: int = 1
    courtesy: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """What a teacher says of two segments."""

    label: float  # 1: the first, 0: the second, 0.5: a tie
    probability: float  # with which this teacher prefers the first, its mistakes included


@dataclass(frozen=True)
class Pool:
    """Gold returns of many segments, `[N]`, by which worth is measured.

    Raises:
        ValueError: all segments are worth the same, so that there is nothing to prefer.
    """

    returns: Floats

    def __post_init__(self) -> None:
        if not self.spread > 0:
            raise ValueError("all segments are worth the same, so that there is nothing to prefer; let other behaviours play")

    @cached_property
    def spread(self) -> float:
        """Their standard deviation, in the world's unit."""
        return float(np.std(self.returns))


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """An annotator. The defaults of the settings stand in `conf/teacher`.

    Attributes:
        gold: what it goes by: the `reward` of each turn, which has luck in it, or the `regret` Q*(s, a) - V*(s), which has none.
        beta: rationality; the odds of preferring what is one spread better are exp(beta). Infinity: never in doubt.
        mistake: chance to name the one it likes less.
        equal: spreads of return within which it calls a tie; utilities that are the same are a tie anyway.
        skip: it does not judge two segments that are both among this share of the pool, the worst.
        discount: myopia; what a turn counts against the turn after it.
        length_bias: spreads by which a text seems better that has twice as many words.
        style_bias: spreads by which a segment seems better whose every message is courteous.
    """

    gold: Literal["reward", "regret"]
    beta: Rationality
    mistake: Fraction
    equal: NonNegative
    skip: Fraction
    discount: Fraction
    length_bias: Bias
    style_bias: Bias

    def utility(self, segment: Segment, pool: Pool) -> float:
        """How good a segment seems, in spreads."""
        turns = len(segment.gold)
        seen = float(segment.gold @ self.discount ** np.arange(turns - 1, -1, -1))
        return seen / pool.spread + self.length_bias * math.log2(max(1, segment.words)) + self.style_bias * segment.courtesy

    def skips(self, first: Segment, second: Segment, pool: Pool) -> bool:
        """Whether it finds both too bad to judge."""
        return self.skip > 0 and max(first.gold.sum(), second.gold.sum()) < np.quantile(pool.returns, self.skip)

    def ties(self, first: Segment, second: Segment, pool: Pool) -> bool:
        """Whether it finds them equally good."""
        near = abs(first.gold.sum() - second.gold.sum()) < self.equal * pool.spread
        return near or abs(self.utility(first, pool) - self.utility(second, pool)) < _SAME

    def probability(self, first: Segment, second: Segment, pool: Pool) -> float:
        """With which it says that it likes the first better, mistakes included; 0.5 for a tie."""
        if self.ties(first, second, pool):
            return 0.5
        better = float(expit(self.beta * (self.utility(first, pool) - self.utility(second, pool))))
        return (1 - self.mistake) * better + self.mistake * (1 - better)

    def judge(self, first: Segment, second: Segment, pool: Pool, rng: np.random.Generator) -> Verdict | None:
        """Its verdict, by chance where it is in doubt; None: skipped."""
        if self.skips(first, second, pool):
            return None
        probability = self.probability(first, second, pool)
        drawn = float(rng.random() < probability)
        return Verdict(0.5 if self.ties(first, second, pool) else drawn, probability)


def courtesy(messages: Sequence[str]) -> float:
    """Share of messages with a word of courtesy in them."""
    return sum(bool(_COURTESY.search(message)) for message in messages) / max(1, len(messages))


def words(messages: Sequence[str]) -> int:
    """How many words are said; names of acts are taken apart."""
    return sum(len(message.replace("_", " ").split()) for message in messages)


def fit_teacher(differences: ArrayLike, preferred: ArrayLike) -> tuple[float, float]:
    """Rationality and share of mistakes of whoever gave some verdicts, by maximum likelihood.

    Args:
        differences: `[N]` worth of the first less worth of the second, in spreads.
        preferred: `[N]` whether the first was preferred; no ties.
    """
    signed = np.where(np.asarray(preferred, bool), 1.0, -1.0) * np.asarray(differences, float)

    def loss(parameters: Floats) -> float:
        beta, mistake = parameters
        right, wrong = log_expit(beta * signed), log_expit(-beta * signed)
        return float(-np.logaddexp(np.log1p(-mistake) + right, np.log(mistake) + wrong).mean())

    beta, mistake = minimize(loss, np.array([1.0, 0.1]), method="Nelder-Mead", bounds=[(1e-3, 1e3), (1e-9, 0.5)]).x
    return float(beta), float(mistake)
