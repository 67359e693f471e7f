"""How people differ: what a simulated annotator must be to judge as those did who rated the sentences of reviews.

`python -m domains.customer_service.sentiment.raters` prints the figures of `conf/teacher/raters.yaml`. Two sentences are compared as two
of their twenty raters did, one each; a sentence is truly worth the mean of its other nineteen ratings. Two people differ more than one
person who sees both sentences, so the figures err on the side of noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domains.customer_service.sentiment.source import Sentiment
from framework.preferences.teachers import fit_teacher
from framework.types import Floats


@dataclass(frozen=True)
class Raters:
    """How some people judge pairs; a spread is the standard deviation of what sentences are worth."""

    spread: float  # points of the scale from -4 to 4
    agreement: float  # share of verdicts that name the better sentence, ties left out
    ties: float  # share of pairs given the same number
    beta: float  # a spread
    mistake: float  # share of verdicts that went astray
    equal: float  # spreads within which as many pairs lie as are tied


def calibrate(ratings: Floats, pairs: int = 200_000, seed: int = 0) -> Raters:
    """Compares pairs of rows that are drawn by chance.

    Args:
        ratings: `[N, R]`, of each of N sentences by R people.
        pairs: how many.
        seed: of the draw.
    """
    rng, (rows, people) = np.random.default_rng(seed), ratings.shape
    first, second = rng.integers(rows, size=pairs), rng.integers(rows - 1, size=pairs)
    second += second >= first  # another sentence
    said, worth = np.empty((2, pairs)), np.empty((2, pairs))
    for side, row in enumerate((first, second)):
        said[side] = ratings[row, rng.integers(people, size=pairs)]
        worth[side] = (ratings[row].sum(axis=1) - said[side]) / (people - 1)
    spread = float(ratings.mean(axis=1).std())
    better, preferred = (worth[0] - worth[1]) / spread, said[0] > said[1]
    tied, level = said[0] == said[1], better == 0
    beta, mistake = fit_teacher(better[~tied], preferred[~tied])
    agreement = (preferred == (better > 0))[~tied & ~level].mean()
    return Raters(spread, float(agreement), float(tied.mean()), beta, mistake, float(np.quantile(np.abs(better), tied.mean())))


if __name__ == "__main__":
    for name, value in vars(calibrate(np.array([ratings for _, _, ratings in Sentiment(None, 0).sentences()]))).items():
        print(f"{name:10}{value:.3f}")
