"""Best of n, and the forms of over-optimisation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from framework.preferences.agreement import best_of
from framework.preferences.overoptimization import FORMS, budget, chances, climbed, coefficients, divergence, read, spread
from framework.types import Estimate

SIZES = [1, 2, 4, 8, 16, 32, 64]
DISTANCE = np.sqrt(divergence(SIZES))


def test_divergence_is_that_of_the_highest_of_n() -> None:
    assert divergence([1]) == pytest.approx([0.0])
    quantile = (np.arange(1_000_000) + 0.5) / 1_000_000  # of a continuous score; the best of n has density n q^(n-1)
    for n in SIZES[1:4]:
        density = n * quantile ** (n - 1)
        assert divergence([n])[0] == pytest.approx(np.mean(density * np.log(density)), abs=1e-4)


def test_chances_are_those_of_agreement_and_sum_to_one() -> None:
    rng = np.random.default_rng(0)
    scores, gold = rng.normal(size=100), rng.normal(size=100)
    exact = best_of(scores, gold, SIZES)
    assert chances(100, SIZES).sum(axis=1) == pytest.approx(np.ones(len(SIZES)))
    assert chances(100, SIZES) @ gold[np.argsort(scores)] == pytest.approx([exact[n] for n in SIZES])
    assert np.isfinite(chances(4096, [1, 1024])).all()


def test_gold_as_scorer_never_falls_and_begins_at_the_behaviours_mean() -> None:
    gold = np.random.default_rng(0).normal(size=(8, 256))
    gains = climbed(gold, gold, SIZES)
    assert gains[0] == pytest.approx(0, abs=1e-12) and (np.diff(gains) > 0).all()
    assert climbed(np.zeros_like(gold), np.zeros_like(gold), SIZES) == pytest.approx(np.zeros(len(SIZES)))


def test_a_wrong_reward_is_over_optimised() -> None:
    """It agrees with gold on ordinary trajectories, and is mistaken about the few that it likes best."""
    gold = np.random.default_rng(0).normal(size=(16, 512))
    wrong = np.where(gold < -2, 5.0 - gold, gold)
    found = read(climbed(wrong, gold, SIZES)[None], climbed(wrong, wrong, SIZES)[None], SIZES)
    assert (np.diff([estimate.mean for estimate in found.proxy]) > 0).all()
    assert 1 < found.peak < SIZES[-1] and found.lost.mean > 0.5 and found.gold[-1].mean < 0 and found.area.mean > 1
    assert found.budget <= divergence([found.peak])[0]
    assert spread(gold) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("form", FORMS)
def test_forms_recover_what_a_curve_was_made_of(form: str) -> None:
    rng = np.random.default_rng(0)
    d = DISTANCE
    curve = np.concatenate([[0.0], (d * (1.3 - 0.4 * FORMS[form](np.where(d > 0, d, 1.0))))[1:]])
    assert coefficients(form, d[1:], curve[None, 1:])[0] == pytest.approx([1.3, 0.4])
    noisy = curve + 0.02 * rng.normal(size=(12, len(SIZES)))
    found = read(noisy, noisy, SIZES).forms[form]
    assert found.alpha.low < 1.3 < found.alpha.high and found.beta.low < 0.4 < found.beta.high
    assert found.alpha.high - found.alpha.low < 0.1 and found.explained > 0.99


def test_peaks_of_the_forms() -> None:
    d = DISTANCE
    falling = (d * (1.2 - 0.5 * d))[None]
    assert read(falling, falling, SIZES).forms["best_of_n"].peak == pytest.approx((1.2 / 1.0) ** 2)
    rising = d[None]
    assert read(rising, rising, SIZES).forms["best_of_n"].peak == math.inf or abs(read(rising, rising, SIZES).forms["best_of_n"].beta.mean) < 1e-9


def test_a_budget_is_the_least_that_is_as_good_as_the_peak_within_its_interval() -> None:
    kl, gold = np.array([0.0, 3.0, 1.0, 2.0]), np.array([0.0, 1.7, 1.5, 2.0])
    assert [budget(kl, gold, Estimate(2.0, low, 2.5)) for low in (2.0, 1.7, 1.5, -0.1)] == [2.0, 2.0, 1.0, 0.0]
