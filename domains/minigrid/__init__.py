"""MiniGrid: levels of BabyAI, told in words."""

from typing import Any

import gymnasium

from domains.minigrid.world import BabyAI
from framework.config import load_domain
from framework.interfaces import World

__all__ = ["BabyAI", "make"]


def make(environment: str, split: str = "train", **_: Any) -> World:
    """Entry point of the gymnasium ids; a world with the settings of `conf/domain/minigrid.yaml`."""
    world: World = load_domain("minigrid", environment).make(split)
    return world


for _environment in ("GoToRedBallGrey", "PickupLoc"):
    gymnasium.register(f"minigrid/{_environment}-v0", entry_point="domains.minigrid:make", kwargs={"environment": _environment})
