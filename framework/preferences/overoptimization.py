"""How far a score can be climbed before what it stands for falls: best of n, and the forms of Gao, Schulman and Hilton.

Of n trajectories of a behaviour the one that scores highest is taken. How far that is from the behaviour: KL = log n − (n − 1)/n nats, exact where
no two trajectories score alike, and never more (Beirami et al., 2024, arXiv:2401.01879). With d = √KL, gold was found to gain d(α − βd) by best of n
and d(α − β log d) by reinforcement learning (Gao et al., 2023, arXiv:2210.10760). P: starts, N: trajectories of each, K: sizes n, R: seeds.
Gains are above the behaviour's mean, in spreads: standard deviations over the trajectories of one start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from framework.types import Estimate, Floats

_RESAMPLES = 2_000


def divergence(sizes: Sequence[int]) -> Floats:
    """KL of the best of n from what it was chosen from, nats, `[K]`."""
    n = np.asarray(sizes, float)
    return np.asarray(np.log(n) - (n - 1) / n)


def chances(count: int, sizes: Sequence[int]) -> Floats:
    """With which the trajectory of rank i from below is the highest of n of N, C(i − 1, n − 1) / C(N, n), `[K, N]`."""
    n, rank = np.asarray(sizes, float)[:, None], np.arange(1.0, count + 1)[None]
    above = np.where(rank < n, -np.inf, gammaln(rank) - gammaln(np.maximum(rank - n, 0) + 1) - gammaln(n))
    return np.asarray(np.exp(above - (gammaln(count + 1) - gammaln(count - n + 1) - gammaln(n + 1))))


def climbed(scores: Floats, worth: Floats, sizes: Sequence[int]) -> Floats:
    """Mean gain in worth of what scores highest among n, over all choices of n, in spreads; equal scores in the order given.

    Args:
        scores: `[P, N]`.
        worth: `[P, N]`; the scores themselves for the gain that a scorer promises.
        sizes: n, none above N.

    Returns:
        Over starts, `[K]`.
    """
    ordered = np.take_along_axis(worth, np.argsort(scores, axis=1, kind="stable"), axis=1).mean(axis=0)
    return np.asarray((chances(len(ordered), sizes) @ ordered - worth.mean()) / (spread(worth) or 1.0))


def spread(worth: Floats) -> float:
    """Standard deviation over the trajectories of a start, its variance a mean over starts."""
    return float(np.sqrt(worth.var(axis=1).mean()))


@dataclass(frozen=True)
class Form:
    """A fitted form: gold gains d(α − βd) or d(α − β log d)."""

    alpha: Estimate
    beta: Estimate
    explained: float  # share of the variance of the mean curve, R²
    peak: float  # KL at which the form is highest, nats; infinite where it never falls


@dataclass(frozen=True)
class Climb:
    """What became of climbing one scorer.

    Attributes:
        gold: gain by n, spreads of gold.
        proxy: gain by n in the score itself, spreads of the score.
        forms: of the gold, `best_of_n` and `rl`.
        peak: n at which the mean gold is highest.
        lost: gold that is lost from there to the largest n, spreads.
        area: between proxy and gold over d, spreads: how much more was promised than kept.
        budget: see `budget`.
    """

    gold: Sequence[Estimate]
    proxy: Sequence[Estimate]
    forms: Mapping[str, Form]
    peak: int
    lost: Estimate
    area: Estimate
    budget: float


FORMS: Mapping[str, Callable[[Floats], Floats]] = {"best_of_n": lambda d: d, "rl": np.log}
"""What β stands before."""


def coefficients(form: str, distance: Floats, gains: Floats) -> Floats:
    """Least squares of d(α − βf(d)), f: d or log d.

    Args:
        form: of `FORMS`.
        distance: d > 0, `[K]`.
        gains: `[R, K]`.

    Returns:
        α and β, `[R, 2]`.
    """
    return np.asarray(gains @ np.linalg.pinv(_design(form, distance)).T)


def read(gold: Floats, proxy: Floats, sizes: Sequence[int], seed: int = 0) -> Climb:
    """Means over seeds, with 95 % percentile bootstrap intervals over them; points where there is one seed.

    Args:
        gold: gains, `[R, K]`.
        proxy: gains, `[R, K]`.
        sizes: n, the first of them 1.
        seed: of the resampling.
    """
    rows = np.random.default_rng(seed).integers(len(gold), size=(_RESAMPLES, len(gold)))
    distance, mean = np.sqrt(divergence(sizes)), gold.mean(axis=0)
    drawn, promised = gold[rows].mean(axis=1), proxy[rows].mean(axis=1)
    found = [_estimate(mean[k], drawn[:, k]) for k in range(len(sizes))]
    peak = int(mean.argmax())
    beyond = np.trapezoid(proxy.mean(axis=0) - mean, distance), np.trapezoid(promised - drawn, distance, axis=1)
    return Climb(
        gold=found,
        proxy=[_estimate(value, promised[:, k]) for k, value in enumerate(proxy.mean(axis=0))],
        forms={name: _form(name, distance[1:], mean[1:], drawn[:, 1:]) for name in FORMS},
        peak=sizes[peak],
        lost=_estimate(mean[peak] - mean[-1], drawn[:, peak] - drawn[:, -1]),
        area=_estimate(*beyond),
        budget=budget(divergence(sizes), mean, found[peak]),
    )


def budget(kl: Floats, gold: Floats, peak: Estimate) -> float:
    """Least KL whose mean gold is within the interval of the peak, nats: to go on from there buys nothing that shows.

    Args:
        kl: nats, in any order, `[K]`.
        gold: means over seeds, `[K]`.
        peak: of the highest.
    """
    return float(kl[gold >= peak.low - 1e-12].min())


def _design(form: str, distance: Floats) -> Floats:
    return np.stack([distance, -distance * FORMS[form](distance)], axis=1)


def _form(name: str, distance: Floats, mean: Floats, drawn: Floats) -> Form:
    alpha, beta = coefficients(name, distance, mean[None])[0]
    resampled = coefficients(name, distance, drawn)
    left, all_of_it = mean - _design(name, distance) @ np.array([alpha, beta]), mean - mean.mean()
    explained = 1 - float(left @ left) / float(all_of_it @ all_of_it) if all_of_it.any() else float("nan")
    return Form(_estimate(alpha, resampled[:, 0]), _estimate(beta, resampled[:, 1]), explained, _peak(name, float(alpha), float(beta)))


def _peak(name: str, alpha: float, beta: float) -> float:
    """Where d(α − βd) is highest: d = α/2β; d(α − β log d): d = exp(α/β − 1). Nothing is won where α, or that, is below zero."""
    if name == "best_of_n":
        return 0.0 if alpha <= 0 else (alpha / (2 * beta)) ** 2 if beta > 0 else float("inf")
    return float(np.exp(2 * min(alpha / beta - 1, 300.0))) if beta > 0 else float("inf")


def _estimate(value: float, resampled: Floats) -> Estimate:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high))
