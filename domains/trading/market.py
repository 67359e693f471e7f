"""Stretches of a recorded price as episodes of gym-anytrading, and what a trader is told of them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gym_anytrading.datasets import STOCKS_GOOGL
from gym_anytrading.envs import Positions, StocksEnv

DAYS = len(STOCKS_GOOGL)  # of Google's shares, 2009 to 2018
_SPANS = (1, 5, 20)  # days over which the rise is told


class Stretch(gymnasium.Env[Any, int]):
    """Some days of Google's shares, begun by chance: a `StocksEnv` for each episode.

    The reward is the growth of the logarithm of what the account would fetch if all were sold now, fees paid; its sum over an episode is the
    logarithm of the package's `total_profit`. The package's own reward, the points gained by closed positions before fees, is `info["proxy"]`.
    Trades are made at the next day's price.

    Args:
        window: days of prices that are known at the start.
        days: acts of an episode.
        first: day from which prices may be seen.
        last: day before which all ends.
        fees: factor on the package's fees (1 % of a sale, 0.5 % of a purchase).
    """

    def __init__(self, window: int, days: int, first: int, last: int, fees: float) -> None:
        self.window, self.days, self.fees = window, days, fees
        self.starts = (first + window, last - days)  # half open
        self.action_space = gymnasium.spaces.Discrete(2)  # type: ignore[assignment]
        self.observation_space = gymnasium.spaces.Box(-1e10, 1e10, (window, 2), np.float32)
        self.market: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """See `gymnasium.Env`; the observation is the package's: prices and their differences `[window, 2]`."""
        super().reset(seed=seed)
        start = int(self.np_random.integers(*self.starts))
        self.market = StocksEnv(STOCKS_GOOGL, self.window, (start, start + self.days + 1))
        self.market.trade_fee_bid_percent *= self.fees
        self.market.trade_fee_ask_percent *= self.fees
        shown, _ = self.market.reset(seed=seed)
        return shown, {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env`: 0 is to be in cash, 1 in the stock. At the last day all is sold, so nothing is left to come."""
        before = self.worth
        shown, points, _, ended, _ = self.market.step(action)
        growth = float(np.log(self.worth / before))
        return shown, growth, ended, False, {"reward_terms": {"growth": growth}, "proxy": points}

    @property
    def holds(self) -> bool:
        """Whether the account is in the stock."""
        return bool(self.market._position == Positions.Long)

    @property
    def bought(self) -> float:
        """The price of the last trade."""
        return float(self.market.prices[self.market._last_trade_tick])

    @property
    def worth(self) -> float:
        """What the account would fetch now, as a multiple of what it began with."""
        market = self.market
        if not self.holds or market._truncated:
            return float(market._total_profit)
        kept = (1 - market.trade_fee_ask_percent) * (1 - market.trade_fee_bid_percent)
        return float(market._total_profit * kept * market.prices[market._current_tick] / self.bought)


def describe(env: Any, observation: Any) -> list[str]:
    """Lines that tell how the price went, what is held and how long there is; of what will come they say nothing.

    Args:
        env: a `Stretch`.
        observation: its window of prices and differences, `[window, 2]`.
    """
    prices = np.asarray(observation, float)[:, 0]
    lines = [f"the last {f'{days} days' if days > 1 else 'day'}: {_moved(prices[-1] / prices[-1 - days] - 1)}" for days in _SPANS if days < len(prices)]
    lowest, highest = prices.min(), prices.max()
    third = int(3 * (prices[-1] - lowest) / max(highest - lowest, 1e-9))
    lines.append(f"in the range of the last {len(prices)} days: {('near the bottom', 'in the middle', 'near the top', 'at the very top')[third]}")
    lines.append(f"swings: {100 * np.abs(np.diff(prices) / prices[:-1]).mean():.1f} % a day")
    lines.append(f"you hold the stock, {_moved(prices[-1] / env.bought - 1)} since you bought it" if env.holds else "you hold cash")
    return [*lines, f"days left: {env.market._end_tick - env.market._current_tick}"]


def _moved(share: float) -> str:
    """A rise or fall, to half a percent."""
    halves = round(200 * share)
    return "unchanged" if halves == 0 else f"{'up' if halves > 0 else 'down'} {abs(halves) / 2:g} %"
