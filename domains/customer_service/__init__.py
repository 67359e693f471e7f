"""Customer service: a desk with a policy and a database, and a desk that mends printers."""

from typing import Any

import gymnasium

from domains.customer_service.help_desk import HelpDesk
from domains.customer_service.policy_desk import PolicyDesk
from framework.config import load_domain
from framework.interfaces import World

__all__ = ["HelpDesk", "PolicyDesk", "make"]


def make(environment: str, split: str = "train", **_: Any) -> World:
    """Entry point of the gymnasium ids; a world with the settings of `conf/domain/customer_service.yaml`."""
    world: World = load_domain("customer_service", environment).make(split)
    return world


for _world in (PolicyDesk, HelpDesk):
    gymnasium.register(f"customer_service/{_world.environment}-v0", entry_point="domains.customer_service:make", kwargs={"environment": _world.environment})
