"""Trading: a recorded share price, told in words. Research simulator, not advice."""

from typing import Any

import gymnasium

from domains.trading.world import Stocks
from framework.config import load_domain
from framework.interfaces import World

__all__ = ["Stocks", "make"]


def make(environment: str, split: str = "train", **_: Any) -> World:
    """Entry point of the gymnasium ids; a world with the settings of `conf/domain/trading.yaml`."""
    world: World = load_domain("trading", environment).make(split)
    return world


gymnasium.register(f"trading/{Stocks.environment}-v0", entry_point="domains.trading:make", kwargs={"environment": Stocks.environment})
