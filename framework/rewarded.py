"""A world that pays by a reward model in place of its own reward, and keeps account of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from framework.interfaces import RewardModel, World
from framework.ledger import KEPT, Account
from framework.types import Bools, Grounds, Step


def announce(worlds: Sequence[World], acts: Sequence[int]) -> None:
    """Tells the reward of worlds that are about to be stepped, if it is not their own, what it will be asked; a negative number is no act."""
    rewarded = [(world, act) for world, act in zip(worlds, acts, strict=True) if isinstance(world, RewardedWorld)]
    if rewarded:
        rewarded[0][0].reward.expect([(str(world.render()), world.acts[act] if act >= 0 else "") for world, act in rewarded])


class RewardedWorld(World):
    """The same world under another reward.

    A step from which the reward model abstains pays nothing.

    Args:
        world: what is played.
        reward: what pays; asked at every step, with the observation that was shown and the name of the act.
        episodes: accounts of the last that ended; worlds that learn together share them.
    """

    def __init__(self, world: World, reward: RewardModel, episodes: list[Account]) -> None:
        self.world, self.reward, self.episodes = world, reward, episodes
        self.turns: list[Step]  # of the episode so far, as are gold and paid: its return, and what the reward paid
        self.acts, self.max_steps = world.acts, world.max_steps
        self.action_space, self.observation_space = world.action_space, world.observation_space
        self.metadata, self.render_mode = world.metadata, world.render_mode
        self._begin()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """See `gymnasium.Env`."""
        self._begin()
        return self.world.reset(seed=seed, options=options)

    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env`."""
        return self._paid(str(self.render()), self.acts[int(action)], self.information_state(), self.world.step(action))

    def idle(self) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """See `World`."""
        return self._paid(str(self.render()), "", self.information_state(), self.world.idle())

    def render(self) -> Any:
        """See `gymnasium.Env`."""
        return self.world.render()

    def action_mask(self) -> Bools:
        """See `World`."""
        return self.world.action_mask()

    def information_state(self) -> tuple[int, ...]:
        """See `World`."""
        return self.world.information_state()

    def grounds(self) -> Grounds:
        """See `World`."""
        return self.world.grounds()

    def get_state(self) -> dict[str, Any]:
        """See `World`."""
        return {"world": self.world.get_state(), "gold": self.gold, "paid": self.paid, "turns": [asdict(turn) for turn in self.turns]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See `World`."""
        self.world.set_state(state["world"])
        self.gold, self.paid = float(state["gold"]), float(state["paid"])
        self.turns = [Step(**{**turn, "state": tuple(turn["state"]), "left": turn["left"] and tuple(turn["left"])}) for turn in state["turns"]]

    def _begin(self) -> None:
        self.gold = self.paid = 0.0
        self.turns = []

    def _paid(self, shown: str, act: str, state: tuple[int, ...], moved: tuple[Any, ...]) -> tuple[str, float, bool, bool, dict[str, Any]]:
        text, gold, terminated, truncated, info = moved
        left = self.information_state() if truncated else None
        self.turns.append(Step(shown, act, info["reward_terms"], info["costs"], info["proxy"], state, left))
        score = float(self.reward.score(self.turns[-1:])[0])
        reward = 0.0 if np.isnan(score) else score
        self.gold, self.paid = self.gold + float(gold), self.paid + reward
        if terminated or truncated:
            doubts = {sign: float(np.mean(found)) for sign, found in self.reward.doubts(self.turns).items()}
            self.episodes.append({"gold": self.gold, "reward": self.paid, **doubts})
            del self.episodes[:-KEPT]
        return text, reward, terminated, truncated, info
