"""What gradient-based algorithms ask of a policy beyond the contract: an encoder and a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

from gymnasium.spaces import Box

from framework.errors import ConfigError
from framework.interfaces import Policy
from framework.types import Bools, Ints


class NetworkPolicy(Protocol):
    """A policy whose network maps encoded observations to scores `[B, A]` (forbidden acts very low) and values `[B]`."""

    space: Box
    network: Any

    def encode(self, texts: Sequence[str], masks: Bools) -> Ints:
        """Encoded observations, `[B, ...]`."""


def network_policy(policy: Policy, place: str) -> NetworkPolicy:
    """The policy, if it has what is asked.

    Raises:
        ConfigError: it has no network.
    """
    if not hasattr(policy, "network") or not hasattr(policy, "encode"):
        raise ConfigError(place, f"needs a policy with a network (policy=head), not {type(policy).__name__}")
    return cast(NetworkPolicy, policy)
