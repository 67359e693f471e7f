"""How well scores agree with preferences, and with the truth behind them where that is known.

`ahead`: the score of the chosen side less that of the rejected one, `[N]`; σ(ahead) is the chance that it gives to what was chosen. What a
teacher draws by chance nobody can foretell: with the probability p of its choice known, `bayes_accuracy`, the mean of max(p, 1 − p), is
the most that anyone agrees with it, and `expected_agreement` is what a scorer would come to if every pair were asked about again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import comb, expit, xlogy
from scipy.stats import spearmanr

from framework.statistics import bootstrap
from framework.types import Bools, Floats, Preference

_BINS = 10


@dataclass(frozen=True)
class Truth:
    """What is known of pairs, `[N]` each; NaN where it is not."""

    labels: Floats
    probabilities: Floats
    margins: Floats

    @staticmethod
    def of(pairs: Sequence[Preference]) -> Truth:
        """What the pairs say of themselves."""
        return Truth(*np.array([(pair.label, pair.probability, pair.margin) for pair in pairs], dtype=np.float64).reshape(-1, 3).T)

    @property
    def decided(self) -> Bools:
        """No tie."""
        return self.labels != 0.5


def label_losses(ahead: Floats, labels: Floats) -> Floats:
    """Cross-entropy of labels and σ(ahead), `[N]`, nats."""
    return np.asarray(labels * np.logaddexp(0, -ahead) + (1 - labels) * np.logaddexp(0, ahead))


def hits(ahead: Floats, truth: Truth) -> Floats:
    """Which pairs are ordered as they were labelled, `[N]`; by halves where both sides score alike, NaN for a tie."""
    right = np.where(ahead == 0, 0.5, (ahead > 0) == (truth.labels > 0.5))
    return np.where(truth.decided, right, np.nan)


def agreement(ahead: Floats, truth: Truth, calibrated: bool) -> dict[str, Any]:
    """What a scorer's order of pairs is worth, as plain numbers; of the truth only what is known.

    Args:
        ahead: see above.
        truth: of the pairs.
        calibrated: whether σ(ahead) claims to be a chance; then its losses and its calibration are told too.
    """
    decided = truth.decided
    ahead, labels, chances, margins = ahead[decided], truth.labels[decided], truth.probabilities[decided], truth.margins[decided]
    right = hits(ahead, Truth(labels, chances, margins))
    told: dict[str, Any] = {"accuracy": _plain(right)}
    if calibrated:
        told["loss"] = _plain(label_losses(ahead, labels))
    if len(chances) and np.isfinite(chances).all():
        kept = np.where(ahead == 0, 0.5, np.where(ahead > 0, chances, 1 - chances))
        most = np.maximum(chances, 1 - chances)
        told |= {"expected_agreement": _plain(kept), "bayes_accuracy": _plain(most), "bayes_gap": _plain(most - kept)}
        told["true_agreement"] = _plain(np.where(ahead == 0, 0.5, (ahead > 0) == (chances > 0.5))[chances != 0.5])
        if calibrated:
            told["expected_loss"] = _plain(label_losses(ahead, chances))
            told["bayes_loss"] = _plain(-xlogy(chances, chances) - xlogy(1 - chances, 1 - chances))
    if calibrated:
        told["reliability"] = reliability(ahead, chances if np.isfinite(chances).all() else labels)
        told["calibration_error"] = sum(bin["share"] * abs(bin["confidence"] - bin["agreement"]) for bin in told["reliability"])
    if len(margins) and np.isfinite(margins).all() and np.ptp(np.abs(margins)) > 0:
        told["margin_correlation"] = float(spearmanr(np.concatenate([ahead, -ahead]), np.concatenate([margins, -margins])).statistic)
        told["gold_captured"] = float((np.sign(ahead) * margins).sum() / np.abs(margins).sum())
        told["by_margin"] = by_margin(right, np.abs(margins))
    return told


def by_margin(right: Floats, margins: Floats) -> list[dict[str, Any]]:
    """Accuracy in each quarter of the pairs, from the least difference in gold to the greatest."""
    parts = [part for part in np.array_split(np.argsort(margins, kind="stable"), 4) if len(part)]
    return [{"low": float(margins[part].min()), "high": float(margins[part].max()), "accuracy": _plain(right[part])} for part in parts]


def reliability(ahead: Floats, chances: Floats) -> list[dict[str, float]]:
    """How sure a scorer is of its own choice, and how often that is the teacher's, in bins of the first (Guo et al., 2017, arXiv:1706.04599)."""
    sure, agreed = expit(np.abs(ahead)), np.where(ahead > 0, chances, 1 - chances)
    bins = np.minimum((_BINS * (2 * sure - 1)).astype(int), _BINS - 1)
    found = [bins == number for number in range(_BINS)]
    return [
        {"confidence": float(sure[inside].mean()), "agreement": float(agreed[inside].mean()), "share": float(inside.mean())} for inside in found if inside.any()
    ]


def best_of(scores: Floats, gold: Floats, sizes: Sequence[int]) -> dict[int, float]:
    """Mean gold of whatever scores highest among n of N trajectories, over all choices of n, by n; equal scores in the order given.

    Exact: the trajectory of rank i from below is the highest of n in C(i − 1, n − 1) of C(N, n) choices.
    """
    count, ordered = len(scores), gold[np.argsort(scores, kind="stable")]
    return {n: float(ordered @ (comb(np.arange(count), n - 1) / comb(count, n))) for n in sizes if n <= count}


def _plain(values: Floats) -> dict[str, float]:
    estimate = bootstrap(values) if len(values) else None
    return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high} if estimate else dict.fromkeys(("mean", "low", "high"), float("nan"))
