"""Gaming: characters that keep a player company and trade with them."""

from typing import Any

import gymnasium

from domains.gaming_npc.merchant import Merchant
from domains.gaming_npc.quest_giver import QuestGiver
from framework.config import load_domain
from framework.interfaces import World

__all__ = ["Merchant", "QuestGiver", "make"]


def make(environment: str, split: str = "train", **_: Any) -> World:
    """Entry point of the gymnasium ids; a world with the settings of `conf/domain/gaming_npc.yaml`."""
    world: World = load_domain("gaming_npc", environment).make(split)
    return world


for _world in (QuestGiver, Merchant):
    gymnasium.register(f"gaming_npc/{_world.environment}-v0", entry_point="domains.gaming_npc:make", kwargs={"environment": _world.environment})
