"""Exploring starts: episodes that begin where chance, not the policy, has led."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from framework.interfaces import World
from framework.worlds.rewarded import RewardedWorld


class ExploringStarts(gymnasium.Wrapper[str, int, str, int]):
    """Some episodes begin with a few random acts before the policy takes over (Sutton and Barto, 5.3).

    Where asking pays only once answers can be read, and answers are read only once they are asked for, a policy that has found
    the best blind decision stays there. From starts with questions already answered it learns to read, and asking follows.
    An act that would end the episode is taken back.

    Args:
        world: what is played.
        share: of episodes that begin so.
        most: random acts at the most; their number is uniform from 1.
    """

    def __init__(self, world: World, share: float, most: int) -> None:
        super().__init__(world)
        self._world, self._share, self._most = world, share, most
        self._beneath = world.world if isinstance(world, RewardedWorld) else world  # acts of chance earn nothing, and no reward model is asked
        self.rng = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """See `gymnasium.Env`; the information says whether the episode is `explored`."""
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        text, info = self._world.reset(seed=seed, options=options)
        if self.rng.random() >= self._share:
            return text, info
        for _ in range(int(self.rng.integers(1, self._most + 1))):
            before = self._beneath.get_state()
            moved, _, terminated, truncated, told = self._beneath.step(int(self.rng.choice(np.flatnonzero(info["action_mask"]))))
            if terminated or truncated:
                self._beneath.set_state(before)
            else:
                text, info = moved, told
        return text, info | {"explored": True}
