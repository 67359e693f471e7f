"""What is said of gold while another reward is climbed."""

from __future__ import annotations

from typing import Any

import pytest

from framework.ledger import beside_gold, entry, exploited, told_in_words, warned


def around(mean: float, width: float = 0.1) -> dict[str, float]:
    return {"mean": mean, "low": mean - width, "high": mean + width}


def account(gold: float, reward: float, **doubts: float) -> dict[str, float]:
    return {"gold": gold, "reward": reward, **doubts}


def looks(*rewards: float) -> list[dict[str, Any]]:
    return [{"env_steps": 100 * number, "reward": around(reward), "signals": {"correlation": around(0.5)}} for number, reward in enumerate(rewards, start=1)]


def test_an_algorithms_return_is_the_reward_and_gold_stands_beside_it() -> None:
    found = beside_gold({"rollout/return": 7.0, "train/loss": 1.0}, {"abstained": 0.0}, [account(1.0, 5.0, distance=1.0), account(2.0, 9.0, distance=2.0)])
    assert found == {"rollout/reward": 7.0, "train/loss": 1.0, "rollout/gold_return": 1.5, "reward/abstained": 0.0, "reward/distance": 1.5}
    assert beside_gold({"rollout/return": 7.0}, {}, []) == {"rollout/reward": 7.0}


def test_a_look_holds_what_was_paid_and_how_it_goes_with_gold() -> None:
    look = entry(300, [account(gold, 3.0 - gold, distance=gold) for gold in (1.0, 2.0, 3.0, 4.0)])
    assert look is not None and look["env_steps"] == 300
    assert look["reward"]["mean"] == 0.5 and look["signals"]["correlation"]["mean"] == pytest.approx(-1) and look["signals"]["distance"]["mean"] == 2.5
    assert entry(0, []) is None and entry(0, [account(1.0, 1.0)]) is None


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
    words = told_in_words({"ledger": looks(*rewards), "exploited": found, "warned": {"correlation": None}})
    assert "correlation of 0.50 [0.40, 0.60]" in words[0] and len(words) == 1 + 2 * (found is not None)
    if found:
        assert (
            found["until"] == 200
            and words[2] == f"The fall showed at step {found['onset']}; nothing gave warning."
            and "rose from 1 to 2 in training, and gold on validation fell from" in words[1]
        )


def test_nothing_is_said_before_an_episode_has_ended() -> None:
    assert exploited([(0, around(1.0)), (100, around(0.0))], []) is None
    assert told_in_words({"ledger": [], "exploited": None, "warned": warned([])}) == []


def test_the_onset_is_the_first_look_that_shows_the_fall() -> None:
    found = exploited([(100 * number, around(mean)) for number, mean in enumerate((1.0, 0.95, 0.7, 0.75, 0.1))], looks(1.0, 2.0, 3.0))
    assert found is not None and (found["since"], found["onset"], found["until"]) == (0, 200, 400)


def test_a_signal_warns_when_it_is_clearly_worse_than_at_the_first_look() -> None:
    courses = {"correlation": (0.8, 0.7, 0.5), "distance": (1.0, 1.3, 0.9), "disagreement": (1.0, 1.1, 0.2)}
    ledger = [
        {"env_steps": 100 * number, "reward": around(0.0), "signals": {name: around(means[number]) for name, means in courses.items()}} for number in range(3)
    ]
    found = warned(ledger)
    assert found == {"correlation": 200, "distance": 100, "disagreement": None}
    told = told_in_words({"ledger": ledger, "exploited": None, "warned": found})
    assert told[1] == "No fall of gold was seen; warning was given by correlation at step 200, distance at step 100, none by disagreement."
