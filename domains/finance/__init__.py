"""Finance: suitability interviews and credit decisions. Research simulators, not advice."""

from typing import Any

import gymnasium

from domains.finance.credit_desk import CreditDesk
from domains.finance.suitability_desk import SuitabilityDesk
from framework.config import load_domain
from framework.interfaces import World

__all__ = ["CreditDesk", "SuitabilityDesk", "make"]


def make(environment: str, split: str = "train", **_: Any) -> World:
    """Entry point of the gymnasium ids; a world with the settings of `conf/domain/finance.yaml`."""
    world: World = load_domain("finance", environment).make(split)
    return world


for _world in (SuitabilityDesk, CreditDesk):
    gymnasium.register(f"finance/{_world.environment}-v0", entry_point="domains.finance:make", kwargs={"environment": _world.environment})
