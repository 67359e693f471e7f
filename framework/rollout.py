"""Worlds played turn by turn, by chance or by a reference policy. All chance is seeded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from framework.interfaces import Oracle, World
from framework.types import Bools

Choose = Callable[[World, Bools], int]


@dataclass(frozen=True, slots=True)
class Turn:
    """One act, and what came of it."""

    mask: Bools  # before the act
    state: tuple[int, ...]  # before the act
    action: int
    text: str
    reward: float
    terminated: bool
    info: Mapping[str, Any]
    next_state: tuple[int, ...]

    @property
    def told(self) -> tuple[Any, ...]:
        """What the same episode must tell again."""
        return self.action, self.text, self.reward, self.terminated, self.info["reward_terms"], self.info["costs"], self.next_state


def onwards(world: World, choose: Choose) -> Iterator[Turn]:
    """Plays on from where a world stands to the end of the episode."""
    for _ in range(world.max_steps):
        mask, state = world.action_mask(), world.information_state()
        action = choose(world, mask)
        text, reward, terminated, truncated, info = world.step(action)
        yield Turn(mask, state, action, text, float(reward), terminated, info, world.information_state())
        if terminated or truncated:
            return
    raise RuntimeError(f"an episode went on after max_steps = {world.max_steps} acts; truncate it there")


def random_acts(seed: int, avoid: Collection[int] = ()) -> Choose:
    """Any allowed act; one in `avoid` only where there is no other."""
    rng, shunned = _chance(seed), list(avoid)

    def choose(world: World, mask: Bools) -> int:
        preferred = mask.copy()
        preferred[shunned] = False
        return int(rng.choice(np.flatnonzero(preferred if preferred.any() else mask)))

    return choose


def following(oracle: Oracle, reference: str, seed: int) -> Choose:
    """Acts as a reference policy does."""
    rng = _chance(seed)

    def choose(world: World, mask: Bools) -> int:
        chances = oracle.probabilities(reference, np.array([world.information_state()]))[0].cumsum()
        return int(np.searchsorted(chances, rng.random() * chances[-1], side="right"))

    return choose


def _chance(seed: int) -> np.random.Generator:
    """A stream of its own: a world that is reset with the same number draws from another one."""
    return np.random.default_rng((seed, 1))


def explore(world: World, episodes: int) -> Iterator[tuple[str, list[Turn]]]:
    """Openings and turns of random play; every other episode shuns acts that have ended one, so that it grows long."""
    ending = set[int]()
    for number in range(episodes):
        opening, _ = world.reset(seed=number)
        turns = list(onwards(world, random_acts(number, ending if number % 2 else ())))
        if turns[-1].terminated:
            ending.add(turns[-1].action)
        yield opening, turns


def situation(world: World, number: int, most_acts: int = 2) -> str:
    """Brings a world to the n-th of many situations: an opening, or up to `most_acts` random acts on; returns its text."""
    text, _ = world.reset(seed=number)
    choose = random_acts(number)
    for _ in range(number % (most_acts + 1)):
        text, _, terminated, truncated, _ = world.step(choose(world, world.action_mask()))
        if terminated or truncated:  # a situation has something left to do
            return world.reset(seed=number)[0]
    return text


def observations(world: World, episodes: int) -> Iterator[str]:
    """Every text that is shown in some episodes of random play."""
    for opening, turns in explore(world, episodes):
        yield from (opening, *(turn.text for turn in turns))


def story(world: World, number: int) -> tuple[Any, ...]:
    """All that is told in the episode of a seed, with random acts that hang on the seed alone."""
    return (world.reset(seed=number)[0], *(turn.told for turn in onwards(world, random_acts(number))))
