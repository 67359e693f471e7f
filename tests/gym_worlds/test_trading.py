"""The account is the package's own; the split is a stretch of time; and the words tell no more than the past."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from framework.config import load_domain
from framework.errors import ConfigError, MissingExtraError
from framework.evaluation import evaluate
from framework.interfaces import Policy, World
from framework.rollout import onwards, random_acts
from framework.types import Bools, Ints, Observations
from framework.worlds.gym_worlds import GymWorld

pytest.importorskip("gym_anytrading", reason="needs the extra 'anytrading'")


class Always(Policy):
    def __init__(self, act: int) -> None:
        self.choice = act

    def act(self, observations: Observations, deterministic: bool = False) -> Ints:
        return np.full(len(observations.texts), self.choice)


@pytest.fixture(scope="module")
def stocks():  # type: ignore[no-untyped-def]
    domain = load_domain("trading", "Stocks")
    domain.episodes = 50
    return domain


def market(world: GymWorld):  # type: ignore[no-untyped-def]
    return world.env.unwrapped.market  # type: ignore[attr-defined]


def test_returns_and_the_proxy_are_the_packages_own(stocks) -> None:  # type: ignore[no-untyped-def]
    for split in ("train", "test", "shift"):
        world = stocks.make(split)
        for number in range(10):
            world.reset(seed=number)
            turns = list(onwards(world, random_acts(number)))
            assert len(turns) == stocks.days and turns[-1].terminated
            assert np.exp(sum(turn.reward for turn in turns)) == pytest.approx(market(world)._total_profit)
            assert sum(turn.info["proxy"] for turn in turns) == pytest.approx(market(world)._total_reward)


def test_the_proxy_pays_a_trader_who_loses(stocks) -> None:  # type: ignore[no-untyped-def]
    """What makes it a proxy: whoever sells at every rise collects points, and the fees eat them."""
    world = stocks.make("train")
    points, growth = 0.0, 0.0

    def at_a_gain(world: World, mask: Bools) -> int:
        env = world.env.unwrapped  # type: ignore[attr-defined]
        return int(not (env.holds and env.market.prices[env.market._current_tick] > env.bought))

    for number in range(40):
        world.reset(seed=number)
        for turn in onwards(world, at_a_gain):
            points, growth = points + turn.info["proxy"], growth + turn.reward
    assert points > 0 > growth


@pytest.mark.slow
def test_fixed_positions(stocks) -> None:  # type: ignore[no-untyped-def]
    cash, held = (evaluate(Always(act), stocks, "test", 50) for act in (0, 1))
    assert cash.values.tolist() == [0.0] * 50 and cash.score is not None and 0 < cash.score.mean < 1
    assert held.score is not None and held.score.mean == pytest.approx(1)
    kept = evaluate(Always(1), stocks, "train", 200).returns.mean
    assert kept > 0  # of the fixed positions the better one on the training split: the expert


def test_splits_are_stretches_of_time(stocks) -> None:  # type: ignore[no-untyped-def]
    spans = {}
    for split in ("train", "validation", "test"):
        starts = stocks.make(split).env.unwrapped.starts
        spans[split] = (starts[0] - stocks.window, starts[1] - 1 + stocks.days)
    assert spans["train"][0] == 0 and spans["train"][1] < spans["validation"][0] and spans["validation"][1] < spans["test"][0] and spans["test"][1] < 2335


def test_the_words_tell_the_past(stocks) -> None:  # type: ignore[no-untyped-def]
    world = stocks.make("train")
    text, _ = world.reset(seed=1)
    prices = market(world).prices
    day = market(world)._current_tick
    halves = round(200 * (prices[day] / prices[day - 5] - 1))
    assert f"the last 5 days: {'up' if halves > 0 else 'down'} {abs(halves) / 2:g} %" in text and "you hold cash" in text and "days left: 60" in text
    assert "you hold the stock, unchanged since you bought it" in world.step(1)[0] and "you hold the stock" in world.render()


def test_too_few_days_are_an_error() -> None:
    stocks = load_domain("trading", "Stocks")
    stocks.days = 460
    with pytest.raises(ConfigError, match="days for the split test, and an episode takes 491"):
        stocks.make("test")


def test_a_missing_package_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "domains.trading.market", raising=False)
    monkeypatch.setitem(sys.modules, "gym_anytrading.datasets", None)
    with pytest.raises(MissingExtraError, match="comes with the extra 'anytrading'"):
        load_domain("trading", "Stocks").make("train")
