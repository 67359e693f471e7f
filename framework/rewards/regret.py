"""`reward=regret`: what each turn gives away, by the world's own optimum: gold without luck and without delay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from framework.errors import ConfigError
from framework.interfaces import Domain, RewardModel
from framework.types import Floats, Step
from framework.worlds.given_away import cut_short


class Regret(RewardModel):
    """Q*(s, a) - V*(s): nought for the best act, below it for any other.

    Its expected sum over an episode is that of gold less what the optimum earns, so both rank policies alike. But a return of gold
    also holds what the client happened to be like and what chance did later, and pays for an act when its consequences come; this
    blames the act, at once. It is what a process reward would be that made no mistake (of such: Lightman et al., 2023, arXiv:2305.20050),
    and how simulated teachers judge (Knox et al., 2024, arXiv:2310.02456). An act that is forbidden, or none that was understood, gives
    away what one drawn by chance would, lest silence look better than trying. When the clock ends an episode, what was still to be had
    is lost, and what the world charges for that.

    Args:
        domain: knows its optimum.
    """

    def __init__(self, domain: Domain) -> None:
        self.domain = domain

    def prepare(self, observations: Sequence[str]) -> None:
        """See `RewardModel`.

        Raises:
            ConfigError: nobody knows what acts are worth there.
        """
        if not self.domain.oracle("train").exact:
            raise ConfigError("reward", f"regret is measured by an exact optimum, and {self.domain.name}/{self.domain.environment} has none; use reward=gold")

    def score(self, turns: Sequence[Step]) -> Floats:
        """See `RewardModel`."""
        if not turns:
            return np.zeros(0)
        oracle = self.domain.oracle("train")
        values = oracle.action_values(np.array([turn.state for turn in turns]))
        lost = np.zeros(len(turns))
        for number, turn in enumerate(turns):
            allowed = values[number][np.isfinite(values[number])]
            worth = values[number, self.domain.acts.index(turn.act)] if turn.act else -np.inf
            lost[number] = (worth if np.isfinite(worth) else allowed.mean()) - allowed.max()
            if turn.left is not None:
                lost[number] += cut_short(oracle, turn.left, turn.reward_terms)
        return lost
