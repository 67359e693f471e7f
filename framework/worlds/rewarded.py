"""A world that pays by a reward model in place of its own reward, and keeps account of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from framework.interfaces import RewardModel, World
from framework.ledger import KEPT, Account
from framework.types import Bools, Grounds, Reply, Step


def announce(worlds: Sequence[World], replies: Sequence[Reply]) -> None:
    """Tells worlds that are about to be stepped, and their reward, if it is not their own, what is done and said there."""
    for world, reply in zip(worlds, replies, strict=True):
        world.hear(reply.said)
    rewarded = [(world, reply.act) for world, reply in zip(worlds, replies, strict=True) if isinstance(world, RewardedWorld)]
    if rewarded:
        rewarded[0][0].reward.expect([world.asked(act) for world, act in rewarded])


class RewardedWorld(World):
    """The same world under another reward.

    A step from which the reward model abstains pays what steps of this world have paid on average, so that it is worth neither reaching for nor shunning.

    Args:
        world: what is played.
        reward: what pays; asked at every step, with the observation that was shown, the name of the act, and in which words it was said if that was announced.
        episodes: accounts of the last that ended; worlds that learn together share them.
    """

    def __init__(self, world: World, reward: RewardModel, episodes: list[Account]) -> None:
        self.world, self.reward, self.episodes = world, reward, episodes
        self.turns: list[Step]  # of the episode so far, as are gold and paid: its return, and what the reward paid
        self.acts, self.max_steps = world.acts, world.max_steps
        self.action_space, self.observation_space = world.action_space, world.observation_space
        self.metadata, self.render_mode = world.metadata, world.render_mode
        self._scores, self._scored = 0.0, 0  # the sum of all that the reward has given here, and to how many steps
        self._begin()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """See `gymnasium.Env`."""
        self._begin()
        return self.world.reset(seed=seed, options=options)

    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env`."""
        return self._paid(self.asked(int(action)), self.world.step(action))

    def idle(self) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """See `World`."""
        return self._paid(self.asked(-1), self.world.idle())

    def hear(self, said: str) -> None:
        """See `World`."""
        self._said = said
        self.world.hear(said)

    def asked(self, act: int) -> Step:
        """An act that is about to be taken, as it will look to the reward, as far as that is known."""
        shown, name = str(self.render()), self.acts[act] if act >= 0 else ""
        return Step(shown, name, {}, {}, state=self.information_state(), said=self._said, fields=self.fields())

    def fields(self) -> Mapping[str, str]:
        """See `World`."""
        return self.world.fields()

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
        known = {"gold": self.gold, "paid": self.paid, "scores": self._scores, "scored": self._scored}
        return {"world": self.world.get_state(), **known, "turns": [asdict(turn) for turn in self.turns]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See `World`."""
        self.world.set_state(state["world"])
        self.gold, self.paid = float(state["gold"]), float(state["paid"])
        self._scores, self._scored = float(state["scores"]), int(state["scored"])
        self.turns = [Step(**{**turn, "state": tuple(turn["state"]), "left": turn["left"] and tuple(turn["left"])}) for turn in state["turns"]]

    def _begin(self) -> None:
        self.gold = self.paid = 0.0
        self.turns = []
        self._said = ""

    def _paid(self, asked: Step, moved: tuple[Any, ...]) -> tuple[str, float, bool, bool, dict[str, Any]]:
        text, gold, terminated, truncated, info = moved
        left, self._said = self.information_state() if truncated else None, ""
        self.turns.append(replace(asked, reward_terms=info["reward_terms"], costs=info["costs"], proxy=info["proxy"], left=left))
        reward = float(self.reward.score(self.turns[-1:])[0])
        if np.isnan(reward):
            reward = self._scores / max(1, self._scored)
        else:
            self._scores, self._scored = self._scores + reward, self._scored + 1
        self.gold, self.paid = self.gold + float(gold), self.paid + reward
        if terminated or truncated:
            doubts = {sign: float(np.mean(found)) for sign, found in self.reward.doubts(self.turns).items()}
            self.episodes.append({"gold": self.gold, "reward": self.paid, **doubts})
            del self.episodes[:-KEPT]
        return text, reward, terminated, truncated, info
