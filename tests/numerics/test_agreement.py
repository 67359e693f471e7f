"""Agreement of scores with preferences, by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from framework.preferences.agreement import Truth, agreement, best_of, hits, label_losses, reliability

AHEAD = np.array([2.0, -1.0, 0.0, 3.0, 0.5])
TRUTH = Truth(np.array([1.0, 1.0, 1.0, 0.0, 0.5]), np.array([0.9, 0.6, 0.8, 0.3, 0.5]), np.array([4.0, 1.0, 2.0, -3.0, 0.0]))


def test_accuracy_counts_equal_scores_by_halves_and_leaves_ties_out() -> None:
    assert hits(AHEAD, TRUTH)[:4].tolist() == [1.0, 0.0, 0.5, 0.0] and np.isnan(hits(AHEAD, TRUTH)[4])
    told = agreement(AHEAD, TRUTH, calibrated=False)
    assert told["accuracy"]["mean"] == pytest.approx(1.5 / 4)
    assert "loss" not in told and "reliability" not in told


def test_what_the_teacher_draws_by_chance_is_taken_out() -> None:
    told = agreement(AHEAD, TRUTH, calibrated=True)
    assert told["expected_agreement"]["mean"] == pytest.approx((0.9 + 0.4 + 0.5 + 0.3) / 4)
    assert told["bayes_accuracy"]["mean"] == pytest.approx((0.9 + 0.6 + 0.8 + 0.7) / 4)
    assert told["bayes_gap"]["mean"] == pytest.approx((0 + 0.2 + 0.3 + 0.4) / 4)
    assert told["true_agreement"]["mean"] == pytest.approx((1 + 0 + 0.5 + 0) / 4)
    chances = TRUTH.probabilities[:4]
    assert told["bayes_loss"]["mean"] == pytest.approx(-np.mean(chances * np.log(chances) + (1 - chances) * np.log(1 - chances)))
    assert told["gold_captured"] == pytest.approx((4 - 1 + 0 - 3) / 10)
    assert [part["accuracy"]["mean"] for part in told["by_margin"]] == [0.0, 0.5, 0.0, 1.0]


def test_losses_by_hand() -> None:
    assert label_losses(np.array([1.0, 1.0, 900.0]), np.array([1.0, 0.25, 1.0])).tolist() == pytest.approx(
        [np.log1p(np.exp(-1)), 0.25 * np.log1p(np.exp(-1)) + 0.75 * np.log1p(np.exp(1)), 0.0]
    )


def test_a_scorer_that_gives_the_teachers_own_chances_is_calibrated() -> None:
    ahead = np.random.default_rng(0).normal(size=2_000) * 2
    chances = 1 / (1 + np.exp(-ahead))
    told = agreement(ahead, Truth(np.ones(2_000), chances, ahead), calibrated=True)
    assert told["calibration_error"] == pytest.approx(0, abs=1e-12) and told["bayes_gap"]["mean"] == 0
    assert told["expected_loss"]["mean"] == pytest.approx(told["bayes_loss"]["mean"]) and told["margin_correlation"] == pytest.approx(1)
    bins = reliability(3 * ahead, chances)  # too sure
    assert sum(part["share"] for part in bins) == pytest.approx(1) and all(part["agreement"] < part["confidence"] for part in bins[1:])


def test_which_side_is_called_chosen_makes_no_difference() -> None:
    turned = Truth(1 - TRUTH.labels, 1 - TRUTH.probabilities, -TRUTH.margins)
    one, other = (agreement(ahead, truth, calibrated=True) for ahead, truth in ((AHEAD, TRUTH), (-AHEAD, turned)))
    for name in ("accuracy", "loss", "expected_agreement", "true_agreement"):
        assert one[name]["mean"] == pytest.approx(other[name]["mean"])
    assert one["margin_correlation"] == pytest.approx(other["margin_correlation"])


def test_the_truth_is_not_told_where_it_is_not_known() -> None:
    unknown = np.full(5, np.nan)
    told = agreement(AHEAD, Truth(TRUTH.labels, unknown, unknown), calibrated=True)
    assert told.keys() == {"accuracy", "loss", "reliability", "calibration_error"}


def test_the_best_of_n_is_the_mean_over_all_choices() -> None:
    scores, gold = np.array([0.3, -1.0, 2.0, 0.9]), np.array([1.0, 5.0, -2.0, 3.0])
    for n, found in best_of(scores, gold, (1, 2, 3, 4, 5)).items():
        assert found == pytest.approx(np.mean([gold[max(chosen, key=scores.__getitem__)] for chosen in itertools.combinations(range(4), n)]))
