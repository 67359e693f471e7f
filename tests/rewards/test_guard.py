"""Whatever a reward function does wrong is a blank that is counted; where blanks are no exception, the run stops."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from framework.errors import ConfigError, TrainingError
from framework.interfaces import RewardModel
from framework.rewards.guard import Guard
from framework.types import Step

TURNS = [Step("a", "ask", {}, {}), Step("b", "ask", {}, {})]


class Plugin(RewardModel):
    """A reward function of somebody's."""

    def __init__(self, function: Callable[[Sequence[Step]], Any]) -> None:
        self.function = function

    def score(self, turns: Sequence[Step]) -> Any:
        return self.function(turns)


def score_often(guard: Guard) -> None:
    for _ in range(100):
        guard.score(TURNS)


def raising(error: BaseException) -> Callable[[Sequence[Step]], Any]:
    def score(turns: Sequence[Step]) -> Any:
        raise error

    return score


@pytest.mark.parametrize(
    ("function", "blank"),
    [
        (lambda turns: np.array([1.0, 2.0]), [False, False]),
        (lambda turns: [1, 2], [False, False]),
        (lambda turns: [1.0, None], [False, True]),
        (lambda turns: [np.nan, 1.0], [True, False]),
        (lambda turns: [1.0, np.inf], [False, True]),
        (lambda turns: [1.0, -np.inf], [False, True]),
        (lambda turns: None, [True, True]),
        (lambda turns: [], [True, True]),
        (lambda turns: [1.0], [True, True]),
        (lambda turns: [1.0, 2.0, 3.0], [True, True]),
        (lambda turns: 1.0, [True, True]),
        (lambda turns: np.ones((2, 2)), [True, True]),
        (lambda turns: "12", [True, True]),
        (lambda turns: "no", [True, True]),
        (lambda turns: ["good", "bad"], [True, True]),
        (lambda turns: {"a": 1.0, "b": 2.0}, [True, True]),
        (lambda turns: [[1.0], [2.0, 3.0]], [True, True]),
        (raising(ZeroDivisionError("division by zero")), [True, True]),
        (raising(KeyError("x")), [True, True]),
        (raising(RecursionError()), [True, True]),
    ],
)
def test_what_is_no_reward_is_a_blank(function: Callable[[Sequence[Step]], Any], blank: list[bool]) -> None:
    guard = Guard(Plugin(function), most_abstained=1.0, time_limit_s=60)
    scores = guard.score(TURNS)
    assert scores.dtype == np.float64 and np.isnan(scores).tolist() == blank
    assert guard.metrics() == {"abstained": np.mean(blank)} and guard.metrics() == {}


def test_who_hangs_is_not_waited_for_and_may_be_asked_again() -> None:
    release, calls = threading.Event(), []

    def score(turns: Sequence[Step]) -> Any:
        calls.append(1)
        if len(calls) == 1:
            release.wait()
        return [1.0] * len(turns)

    guard = Guard(Plugin(score), most_abstained=1.0, time_limit_s=0.05)
    assert np.isnan(guard.score(TURNS)).all()
    assert guard.score(TURNS).tolist() == [1.0, 1.0]
    release.set()
    assert guard.score(TURNS).tolist() == [1.0, 1.0], "an answer that comes too late is nobody's"


def test_what_is_expected_may_fail_or_hang_as_well() -> None:
    release = threading.Event()

    class Eager(Plugin):
        def expect(self, turns: Sequence[Step]) -> None:
            if turns[0].observation == "hang":
                release.wait()
            raise ValueError("not now")

    guard = Guard(Eager(lambda turns: [1.0] * len(turns)), most_abstained=0.0, time_limit_s=0.05)
    for said in ("hang", "fail"):
        guard.expect([Step(said, "ask", {}, {})])
        assert guard.score(TURNS).tolist() == [1.0, 1.0]
    release.set()
    assert guard.metrics() == {"abstained": 0.0}


def test_too_many_blanks_stop_the_run() -> None:
    number = iter(range(1_000))
    guard = Guard(Plugin(lambda turns: [None if next(number) % 4 == 0 else 1.0 for _ in turns]), most_abstained=0.2, time_limit_s=60)
    with pytest.raises(TrainingError, match=r"Plugin gave no usable reward for 21 of the last 82 turns, and a share of at most 0.2 may.*21 times a value that"):
        score_often(guard)


def test_a_reward_that_never_answers_is_found_out_soon() -> None:
    guard = Guard(Plugin(lambda turns: None), most_abstained=0.05, time_limit_s=60)
    with pytest.raises(TrainingError, match="6 of the last 6 turns"):
        score_often(guard)


def test_few_blanks_do_not() -> None:
    number = iter(range(1_000))
    guard = Guard(Plugin(lambda turns: [None if next(number) % 10 == 9 else 1.0 for _ in turns]), most_abstained=0.1, time_limit_s=60)
    score_often(guard)
    assert guard.metrics()["abstained"] == pytest.approx(0.1)


def test_an_error_of_the_user_is_told_to_the_user() -> None:
    with pytest.raises(ConfigError, match="reward: mend it"):
        Guard(Plugin(raising(ConfigError("reward", "mend it"))), most_abstained=1.0, time_limit_s=60).score(TURNS)


def test_ctrl_c_is_no_abstention() -> None:
    with pytest.raises(KeyboardInterrupt):
        Guard(Plugin(raising(KeyboardInterrupt())), most_abstained=1.0, time_limit_s=60).score(TURNS)
