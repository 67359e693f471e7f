"""Simulated annotators: by hand, by frequency, and against people."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from framework.config import CONF, build
from framework.errors import ConfigError
from framework.preferences.teachers import Pool, Segment, Teacher, courtesy, fit_teacher, words

PLAIN: dict[str, Any] = {
    "gold": "reward",
    "beta": math.inf,
    "mistake": 0.0,
    "equal": 0.0,
    "skip": 0.0,
    "discount": 1.0,
    "length_bias": 0.0,
    "style_bias": 0.0,
}
POOL = Pool(np.array([-2.0, 2.0, 2.0, -2.0]))  # spread 2


def teacher(**settings: Any) -> Teacher:
    return Teacher(**{**PLAIN, **settings})


def segment(*gold: float, words: int = 1, courtesy: float = 0.0) -> Segment:
    return Segment(np.array(gold), words, courtesy)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


BETTER, WORSE = segment(1.0, 2.0), segment(2.0, -1.0)  # 3 and 1: one spread apart
BY_HAND: dict[str, tuple[Teacher, Segment, Segment, float]] = {
    "perfect": (teacher(), BETTER, WORSE, 1.0),
    "perfect, turned": (teacher(), WORSE, BETTER, 0.0),
    "perfect, one mistake in ten": (teacher(mistake=0.1), BETTER, WORSE, 0.9),
    "rational": (teacher(beta=2.0), BETTER, WORSE, sigmoid(2.0)),
    "rational, turned": (teacher(beta=2.0), WORSE, BETTER, sigmoid(-2.0)),
    "rational, one mistake in five": (teacher(beta=2.0, mistake=0.2), BETTER, WORSE, 0.8 * sigmoid(2.0) + 0.2 * sigmoid(-2.0)),
    "myopic": (teacher(beta=2.0, discount=0.5), BETTER, WORSE, sigmoid(2.0 * ((0.5 + 2.0) - (1.0 - 1.0)) / 2)),
    "sees the last turn alone": (teacher(beta=1.0, discount=0.0), segment(9.0, 1.0), segment(0.0, 3.0), sigmoid(-1.0)),
    "lengths differ": (teacher(beta=1.0, discount=0.5), segment(4.0), segment(4.0, 0.0, 2.0), sigmoid((4.0 - 3.0) / 2)),
    "likes length": (teacher(beta=1.0, length_bias=0.5), segment(1.0, words=8), segment(1.0, words=2), sigmoid(0.5 * 2)),
    "length against worth": (teacher(length_bias=0.5), segment(1.0, words=2), segment(0.0, words=8), 0.0),
    "likes courtesy": (teacher(beta=2.0, style_bias=0.5), segment(1.0, courtesy=1.0), segment(1.0, courtesy=0.5), sigmoid(2.0 * 0.25)),
    "nothing to choose by": (teacher(mistake=0.3), segment(1.0, 0.1, 0.2), segment(0.2, 0.1, 1.0), 0.5),
    "within the band": (teacher(equal=1.01, mistake=0.1), BETTER, WORSE, 0.5),
    "at the edge of the band": (teacher(equal=1.0), BETTER, WORSE, 1.0),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_probabilities_by_hand(case: str) -> None:
    told, first, second, expected = BY_HAND[case]
    assert told.probability(first, second, POOL) == pytest.approx(expected, abs=1e-12)
    assert told.probability(second, first, POOL) == pytest.approx(1 - expected, abs=1e-12)


@pytest.mark.parametrize("case", ["perfect, one mistake in ten", "rational, one mistake in five", "rational, turned", "likes courtesy"])
def test_verdicts_come_as_often_as_they_are_said_to(case: str) -> None:
    told, first, second, expected = BY_HAND[case]
    rng, asked = np.random.default_rng(0), 10_000
    verdicts = [told.judge(first, second, POOL, rng) for _ in range(asked)]
    liked = np.mean([verdict.label for verdict in verdicts if verdict])
    assert abs(liked - expected) < 4 * math.sqrt(expected * (1 - expected) / asked)
    assert {verdict.label for verdict in verdicts if verdict} == {0.0, 1.0}


def test_ties_are_ties_every_time() -> None:
    rng = np.random.default_rng(0)
    for told, first, second in ((teacher(equal=1.01), BETTER, WORSE), (teacher(), BETTER, BETTER)):
        assert {told.judge(first, second, POOL, rng) for _ in range(50)} == {told.judge(first, second, POOL, rng)}
        assert told.judge(first, second, POOL, rng).label == 0.5  # type: ignore[union-attr]


def test_two_of_the_worst_are_skipped() -> None:
    pool, rng = Pool(np.arange(101.0)), np.random.default_rng(0)
    told = teacher(skip=0.2)
    assert told.judge(segment(10.0, 9.0), segment(3.0), pool, rng) is None
    assert told.judge(segment(10.0, 10.0), segment(3.0), pool, rng) is not None
    assert teacher().judge(segment(-10.0), segment(-11.0), pool, rng) is not None


def test_the_world_s_unit_does_not_matter() -> None:
    told = teacher(beta=1.3, mistake=0.05, equal=0.2, discount=0.7)
    scaled = Pool(POOL.returns * 1_000 + 77)
    assert told.probability(segment(1_000.0, 2_000.0), segment(2_000.0, -1_000.0), scaled) == pytest.approx(told.probability(BETTER, WORSE, POOL))


def test_a_pool_without_spread_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to prefer"):
        Pool(np.ones(5))


def test_what_is_counted_of_a_text() -> None:
    assert words(["ask_horizon", "How long can it stay?"]) == 7
    assert courtesy(["Thank you. How long?", "How long?", "PLEASE say.", "I thankfully go."]) == 0.5


def test_a_teacher_is_found_again_from_its_verdicts() -> None:
    rng = np.random.default_rng(0)
    better = rng.normal(size=40_000)
    told = 0.9 / (1 + np.exp(-3 * better)) + 0.1 / (1 + np.exp(3 * better))
    beta, mistake = fit_teacher(better, rng.random(40_000) < told)
    assert beta == pytest.approx(3.0, rel=0.05) and mistake == pytest.approx(0.1, abs=0.01)


@pytest.mark.skipif(not (Path(sys.prefix) / "share/touchstone/vaderSentiment-2.5.tar.gz").exists(), reason="the ratings are not there")
def test_the_default_teacher_is_as_people_are() -> None:
    from domains.customer_service.sentiment import Sentiment
    from domains.customer_service.sentiment.raters import calibrate

    found = calibrate(np.array([ratings for _, _, ratings in Sentiment(None, 0).sentences()]), pairs=100_000)
    assert found.agreement == pytest.approx(0.92, abs=0.005) and found.ties == pytest.approx(0.15, abs=0.005)
    settings = OmegaConf.load(CONF / "teacher" / "raters.yaml")
    assert settings.beta == pytest.approx(found.beta, rel=0.02)
    assert settings.equal == pytest.approx(found.equal, rel=0.02)
    assert settings.mistake == pytest.approx(found.mistake, abs=0.002)


def test_a_crowd_is_right_as_often_as_is_said() -> None:
    settings = OmegaConf.load(CONF / "teacher" / "crowd.yaml")
    apart = np.abs(np.random.default_rng(0).normal(size=100_000)) * math.sqrt(2)
    assert np.mean(1 / (1 + np.exp(-settings.beta * apart))) == pytest.approx(0.75, abs=0.003)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"beta": 0.0}, "teacher.beta: input should be greater than 0"),
        ({"mistake": 1.5}, "teacher.mistake: input should be less than or equal to 1"),
        ({"equal": -0.1}, "teacher.equal: input should be greater than or equal to 0"),
        ({"gold": "rewards"}, "teacher.gold: input should be 'reward' or 'regret'"),
        ({"length_bias": math.nan}, "teacher.length_bias: input should be a finite number"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        build({"_target_": "framework.preferences.teachers.Teacher", **PLAIN, **settings}, "teacher")
    assert told in str(raised.value)
