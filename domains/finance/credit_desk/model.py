"""The numbers of the credit desk: a twin of the applicants, what documents cost, what a decision is worth.

The twin is naive Bayes with Laplace smoothing on 700 recorded applicants: P(good or bad), and for each P(value | good or bad) of the
four facts on the application and the six in documents. Given the label all ten are independent, so the optimum is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domains.finance.credit_desk.data import DOCUMENTS, FREE, applicants
from framework.config import Fraction, NonNegative, Positive
from framework.oracles.information_state import Test
from framework.types import Floats, Ints
from framework.worlds.interview import Interview

DECISIONS = ("approve", "approve_reduced", "decline")
PROFILES = tuple(len(values) for values in FREE.values())
"""Shape of the profiles; `numpy.unravel_index` gives a profile's facts."""


@dataclass(frozen=True)
class Numbers:
    """What the desk assumes, in Statlog cost units; `conf/domain/finance.yaml` says which are published and which assumed."""

    bad_approved: NonNegative
    good_declined: NonNegative
    bad_reduced: NonNegative  # the reduced amount is lent to one who does not pay back
    good_reduced: NonNegative  # ... to one who would have paid back the whole
    prices: dict[str, NonNegative]  # of each document
    smoothing: Positive  # added to every count
    counted_losses: Fraction  # share of the losses on bad credits that the proxy sees
    bad_odds: Positive = 1.0  # factor on the odds of a bad credit

    def __post_init__(self) -> None:
        if differing := set(DOCUMENTS) ^ set(self.prices):
            raise ValueError(f"prices needs exactly the documents {', '.join(DOCUMENTS)}; differs in {', '.join(sorted(differing))}")


def interview(numbers: Numbers) -> Interview:
    """Builds the desk's tables; hypothesis 0 is a good credit, 1 a bad one.

    The proxy is business written: what is not lent is missed at once, what is lost shows late, so only a share of it is counted.
    """
    twin, _ = applicants()
    share = numbers.bad_odds * twin.bad.mean() / (1 - twin.bad.mean() + numbers.bad_odds * twin.bad.mean())
    prior = np.array([[1 - share, share]])
    for column, values in enumerate(FREE.values()):
        likelihood = frequencies(twin.free[:, column], twin.bad, len(values), numbers.smoothing)
        prior = (prior[:, None, :] * likelihood.T[None]).reshape(-1, 2)
    tests = [
        Test(f"request_{topic}", numbers.prices[topic], (frequencies(twin.documents[:, column], twin.bad, len(values), numbers.smoothing),))
        for column, (topic, values) in enumerate(DOCUMENTS.items())
    ]
    good, bad = (0.0, -numbers.good_reduced, -numbers.good_declined), (-numbers.bad_approved, -numbers.bad_reduced, 0.0)
    return Interview(
        prior=prior,
        tests=tuple(tests),
        decisions=DECISIONS,
        utilities=np.array([good, bad]),
        proxy_utilities=np.array([good, numbers.counted_losses * np.array(bad)]),
        heuristic=_officer,
        duties={"no_reason": (tuple(test.name for test in tests),)},
        exempt=("approve", "approve_reduced"),
        informed_by="tests",  # nobody can know the future; the file, all six documents, can be known
    )


def frequencies(values: Ints, labels: Ints, n_values: int, smoothing: float) -> Floats:
    """P(value | label), `[2, V]`, with `smoothing` added to every count."""
    counts = np.zeros((2, n_values))
    np.add.at(counts, (labels, values), 1)
    return np.asarray((counts + smoothing) / (counts + smoothing).sum(axis=1, keepdims=True))


def _officer(outcomes: Ints) -> Ints:
    """A credit officer: bank statement first, then the bureau, then points for both; never looks at the application.

    No account or an overdraft is a bad sign, trouble with earlier credits two; a healthy account is a good one, and so are credits
    repaid here. Declines on bad signs, approves on good ones, else lends less.
    """
    bank, bureau = (outcomes[:, list(DOCUMENTS).index(topic)] for topic in ("bank_statement", "bureau_report"))
    points = np.array([-1, -1, 0, 2])[bank] + np.array([-2, 0, 1])[bureau]
    approve = len(DOCUMENTS) + np.arange(len(DECISIONS))
    acts = np.select([points >= 2, points >= 0], approve[:2], approve[2])
    for topic in ("bureau_report", "bank_statement"):
        column = list(DOCUMENTS).index(topic)
        acts = np.where(outcomes[:, column] < 0, column, acts)
    return np.asarray(acts)
