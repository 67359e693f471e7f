"""How much can be earned within a KL of a policy, exactly, in a world whose states are listed one by one.

Of all policies at that KL the one that is tilted by gold, argmax_π E[gold] − T KL(π ‖ π_ref), earns most: as T falls it walks the frontier.
One that is tilted by another reward shows what becomes of gold when that is climbed instead.

S: states; A: acts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from framework.oracles.finite import FiniteProcess, one_hot
from framework.types import Floats

_FIRST, _OCTAVES = 4.0, 16  # temperatures begin so many times above what there is to gain, and are halved so often at the most
_STILL = 1e-6  # nats; a policy that moves less has arrived


@dataclass(frozen=True, slots=True)
class Path:
    """Policies tilted further and further; the first is the reference itself."""

    kl: Floats  # [T] of episodes to those of the reference, nats; ascending
    gold: Floats  # [T] what they earn
    climbed: Floats  # [T] what they earn of the reward they are tilted by

    def at(self, budgets: Sequence[float]) -> Floats:
        """Gold at other KL, nats: on straight lines over √KL between the policies, and that of the last beyond it."""
        return np.interp(np.sqrt(budgets), np.sqrt(self.kl), self.gold)


def climb(process: FiniteProcess, reward: Floats, reference: Floats) -> Path:
    """Tilts a reference policy by a reward, both `[S, A]`, until it moves no more; not at all where nothing is to be gained."""
    paid = np.where(process.mask, reward, 0.0)
    best = one_hot(process.solve(np.where(reference > 0, reward, -np.inf)).argmax(axis=1), reference.shape)
    points = [_told(process, reference, paid, reference)]
    gain = float((process.occupancy(best) * paid).sum()) - points[0][2]
    for octave in range(_OCTAVES if gain > 1e-9 * np.abs(paid).max() else 0):
        point = _told(process, process.tilted(reward, reference, _FIRST * gain / 2**octave), paid, reference)
        if point[0] - points[-1][0] < _STILL:
            break
        points.append(point)
    return Path(*np.array(points).T)


def fitted(process: FiniteProcess, reference: Floats, acts: int, rng: np.random.Generator) -> Floats:
    """A reward `[S, A]` learnt from so many acts of the reference: the mean of what each earned where it was tried, one try at the mean of all added.

    Args:
        process: the world.
        reference: who acts.
        acts: independent draws of a state and an act, as often as episodes come by them.
        rng: of the draws.
    """
    often = process.occupancy(reference)
    tries = rng.multinomial(acts, often.ravel() / often.sum()).reshape(often.shape)
    earned, states = np.zeros(often.shape), process.states
    for row, act in np.argwhere(tries).tolist():
        outcomes = list(process.model.outcomes(states[row], act))
        chances = np.array([outcome.probability for outcome in outcomes])
        seen = rng.multinomial(tries[row, act], chances / chances.sum())
        earned[row, act] = seen @ [outcome.reward for outcome in outcomes]
    return np.where(process.mask, (earned + earned.sum() / acts) / (tries + 1), -np.inf)


def _told(process: FiniteProcess, policy: Floats, paid: Floats, reference: Floats) -> tuple[float, float, float]:
    occupancy = process.occupancy(policy)
    return process.divergence(occupancy, reference), process.worth(occupancy).value, float((occupancy * paid).sum())
