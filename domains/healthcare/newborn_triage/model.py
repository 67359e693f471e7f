"""The numbers of the referral line: diseases, findings and what a decision costs, on the published CHILD network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from framework.config import Fraction, NonNegative, Positive
from framework.data_packages import package_file
from framework.oracles.information_state import Test
from framework.types import Bools, Floats, Ints
from framework.worlds.bayes_net import BayesNet, read_bif
from framework.worlds.interview import Interview

# Variable of the network that each finding is the report of, and our names of its states, in the network's order.
FINDINGS = {
    "birth": ("BirthAsphyxia", ("hard", "easy")),
    "age": ("Age", ("days", "week", "weeks")),  # up to 3 days, 4 to 10, 11 to 30
    "grunting": ("GruntingReport", ("grunting", "quiet")),
    "blood_gas": ("CO2Report", ("normal", "high")),  # carbon dioxide under 7.5 kPa, or not
    "film": ("XrayReport", ("normal", "oligaemic", "plethoric", "ground_glass", "patchy")),
    "ecg": ("LVHreport", ("hypertrophy", "plain")),
    "leg_oxygen": ("LowerBodyO2", ("low", "middling", "good")),  # under 5 kPa, 5 to 12, over 12
    "arm_oxygen": ("RUQO2", ("low", "middling", "good")),
}

# Persistent fetal circulation, transposition of the great arteries, tetralogy of Fallot, pulmonary atresia with intact ventricular
# septum, total anomalous pulmonary venous drainage, lung disease; as the network orders them.
DISEASES = ("PFC", "TGA", "Fallot", "PAIVS", "TAPVD", "Lung")
CARDIAC = np.array([False, True, True, True, True, False])  # belongs in a cardiac centre
CRITICAL = np.array([False, True, False, True, True, False])  # and at once
DECISIONS = (*(f"{'send' if cardiac else 'keep'}_{disease.lower()}" for disease, cardiac in zip(DISEASES, CARDIAC, strict=True)), "hand_to_consultant")

# Given these, every finding is independent of every other: age and grunting share how sick the baby is; grunting, gas, film and oxygen the
# lung tissue; the two samples of oxygen the hypoxia; all of them the disease.
_HIDDEN = ("Disease", "Sick", "LungParench", "HypoxiaInO2")

_PROTOCOL = ("age", "birth", "grunting", "ecg")  # what the rule of thumb asks for


@dataclass(frozen=True)
class Numbers:
    """What the line assumes, in minutes; `conf/domain/healthcare.yaml` holds the values and says which are published."""

    prices: dict[str, NonNegative]  # of telling each finding
    wrong_diagnosis: Positive  # in the right place, prepared for another disease
    critical_kept: Positive  # a critical lesion kept in the local hospital
    fallot_kept: Positive  # Fallot kept in the local hospital
    needless_transfer: Positive  # sent to a cardiac centre without a heart disease
    consultant: Positive  # who looks for himself, and is right
    thoroughness: NonNegative  # what raters who like a long work-up pay for each finding
    mix: tuple[Fraction, Fraction, Fraction, Fraction, Fraction, Fraction] | None = None  # P(disease); the network's own if None

    def __post_init__(self) -> None:
        if missing := set(FINDINGS) ^ set(self.prices):
            raise ValueError(f"prices needs exactly the findings {', '.join(FINDINGS)}; differs in {', '.join(sorted(missing))}")
        if self.mix is not None and not np.isclose(sum(self.mix), 1):
            raise ValueError(f"mix must sum to 1, not {sum(self.mix):g}")


@cache
def network() -> BayesNet:
    """CHILD, as the package `pgmpy` carries it (Spiegelhalter and Cowell, Bayesian Statistics 4, 1992)."""
    return read_bif(package_file("pgmpy", "utils/example_models/child.bif.gz", extra="healthcare"))


def interview(numbers: Numbers) -> Interview:
    """Builds the line's tables.

    The unit of reward is a minute of delay until the baby gets the right treatment, negative: the time that telling a finding
    takes, and what a wrong decision loses. A hypothesis is a joint state of the hidden variables `_HIDDEN` (108 of them), so that
    findings are independent given it, as the engine needs; decisions are judged by its disease alone.
    """
    hidden = network().joint(_HIDDEN)
    if numbers.mix is not None:  # other diseases, each as the network describes it
        hidden = hidden * (np.array(numbers.mix) / hidden.sum(axis=(1, 2, 3)))[:, None, None, None]
    disease = np.repeat(np.arange(len(DISEASES)), hidden[0].size)
    delays = _delays(numbers)
    misplaced = CARDIAC[:, None] != CARDIAC
    return Interview(
        prior=hidden.reshape(1, -1),
        tests=tuple(Test(f"ask_{finding}", numbers.prices[finding], (_likelihood(variable),)) for finding, (variable, _) in FINDINGS.items()),
        decisions=DECISIONS,
        utilities=-delays[disease],
        heuristic=_protocol,
        costs={"undertriage": _violations(CRITICAL, ~CARDIAC)[disease], "overtriage": _violations(~CARDIAC, CARDIAC)[disease]},
        # Raters who read the call know where the baby went, not what it had.
        proxy_prices=np.full(len(FINDINGS), -numbers.thoroughness),
        proxy_utilities=-np.column_stack([np.where(misplaced, delays[:, :-1], 0), delays[:, -1]])[disease],
    )


def _delays(numbers: Numbers) -> Floats:
    """Minutes lost by each decision for each disease, `[6, 7]`."""
    elsewhere = np.select([CRITICAL, CARDIAC], [numbers.critical_kept, numbers.fallot_kept], numbers.needless_transfer)
    delays = np.where(CARDIAC[:, None] == CARDIAC, numbers.wrong_diagnosis, elsewhere[:, None])
    np.fill_diagonal(delays, 0)
    return np.column_stack([delays, np.full(len(DISEASES), numbers.consultant)])


def _violations(of: Bools, by: Bools) -> Floats:
    """1 where a disease in `of` meets a working diagnosis in `by`; handing over is never a violation: `[6, 7]`."""
    return np.column_stack([np.outer(of, by), np.zeros(len(of))]).astype(float)


def _likelihood(variable: str) -> Floats:
    """P(state of a variable | hypothesis), `[108, states]`."""
    joint = network().joint((*_HIDDEN, variable))
    table = joint.reshape(-1, joint.shape[-1])
    return np.asarray(table / table.sum(axis=1, keepdims=True))


def _protocol(outcomes: Ints) -> Ints:
    """A sensible registrar: the same four cheap findings of every baby, then the likeliest disease in the published mix."""
    columns = [list(FINDINGS).index(finding) for finding in _PROTOCOL]
    likeliest = network().joint(("Disease", *(FINDINGS[finding][0] for finding in _PROTOCOL))).argmax(axis=0)
    acts = len(FINDINGS) + likeliest[tuple(np.maximum(outcomes[:, column], 0) for column in columns)]
    for column in reversed(columns):
        acts = np.where(outcomes[:, column] < 0, column, acts)
    return np.asarray(acts)
