"""Healthcare: referrals and intensive care. Research simulators, not advice."""

from typing import Any

import gymnasium

from domains.healthcare.icu_sepsis import IcuSepsis
from domains.healthcare.newborn_triage import NewbornTriage
from framework.config import load_domain
from framework.interfaces import World

__all__ = ["IcuSepsis", "NewbornTriage", "make"]


def make(environment: str, split: str = "train", **_: Any) -> World:
    """Entry point of the gymnasium ids; a world with the settings of `conf/domain/healthcare.yaml`."""
    world: World = load_domain("healthcare", environment).make(split)
    return world


for _world in (NewbornTriage, IcuSepsis):
    gymnasium.register(f"healthcare/{_world.environment}-v0", entry_point="domains.healthcare:make", kwargs={"environment": _world.environment})
