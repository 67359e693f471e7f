"""What is said of gold while another reward is climbed."""

from __future__ import annotations

from typing import Any

import pytest

from framework.ledger import beside_gold, entry, exploited, told_in_words


def around(mean: float, width: float = 0.1) -> dict[str, float]:
    return {"mean": mean, "low": mean - width, "high": mean + width}


def looks(*rewards: float) -> list[dict[str, Any]]:
    return [{"env_steps": 100 * number, "reward": around(reward), "correlation": around(0.5)} for number, reward in enumerate(rewards, start=1)]


def test_an_algorithms_return_is_the_reward_and_gold_stands_beside_it() -> None:
    found = beside_gold({"rollout/return": 7.0, "train/loss": 1.0}, {"abstained": 0.0}, [(1.0, 5.0), (2.0, 9.0)])
    assert found == {"rollout/reward": 7.0, "train/loss": 1.0, "rollout/gold_return": 1.5, "reward/abstained": 0.0}
    assert beside_gold({"rollout/return": 7.0}, {}, []) == {"rollout/reward": 7.0}


def test_a_look_holds_what_was_paid_and_how_it_goes_with_gold() -> None:
    look = entry(300, [(1.0, 2.0), (2.0, 1.0), (3.0, 0.0), (4.0, -1.0)])
    assert look is not None and look["env_steps"] == 300
    assert look["reward"]["mean"] == 0.5 and look["correlation"]["mean"] == pytest.approx(-1)
    assert entry(0, []) is None and entry(0, [(1.0, 1.0)]) is None


@pytest.mark.parametrize(
    ("gold", "rewards", "since"),
    [
        ((0.0, 1.0, 0.5), (1.0, 2.0), 100),  # gold fell from step 100 on, the reward rose
        ((2.0, 1.0, 0.5), (1.0, 2.0), 0),  # gold was at its height before anything was learnt: the reward is known from the first look on
        ((0.0, 1.0, 0.9), (1.0, 2.0), None),  # the intervals meet
        ((0.0, 1.0, 0.5), (2.0, 1.0), None),  # both fell: that is no exploit
        ((0.0, 0.5, 1.0), (1.0, 2.0), None),  # both rose
    ],
)
def test_an_exploit_is_gold_that_falls_while_the_reward_rises(gold: tuple[float, ...], rewards: tuple[float, ...], since: int | None) -> None:
    curve = [(100 * number, around(mean)) for number, mean in enumerate(gold)]
    found = exploited(curve, looks(*rewards))
    assert (found and found["since"]) == since
    words = told_in_words({"ledger": looks(*rewards), "exploited": found})
    assert "correlation of 0.50 [0.40, 0.60]" in words[0] and len(words) == 1 + (found is not None)
    if found:
        assert found["until"] == 200 and "rose from 1 to 2 in training, and gold on validation fell from" in words[1]


def test_nothing_is_said_before_an_episode_has_ended() -> None:
    assert exploited([(0, around(1.0)), (100, around(0.0))], []) is None
    assert told_in_words({"ledger": [], "exploited": None}) == []
