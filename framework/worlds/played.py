"""Worlds whose optimum nobody knows: what policies are worth there is what they earned when they were played.

Such a world has a player that is good at it, its expert. The yardstick is then random acts (0) and the expert (1), rolled out over the same
episodes as the policy that is judged, and the interval covers all three. Demonstrations are the expert's acts. What only an exact oracle
can know (values of acts, the optimum, what is best within cost limits) is not there, and asking for it is an error.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import NoReturn

import numpy as np

from framework.config import Count
from framework.errors import ConfigError
from framework.interfaces import Domain, Oracle, World
from framework.rollout import Choose, onwards, random_acts
from framework.seeding import episode_seed
from framework.statistics import bootstrap, bootstrap_ratio
from framework.types import Demonstration, Estimate, Floats, Ints, Reference

_CLEAR = 4.0  # standard errors by which the expert must be ahead, so that no resample divides by nothing

Player = Callable[[World, int], Choose]
"""Sits down at a world whose episode, the n-th, has just begun; the answer is asked for every act, one after another."""


class PlayedOracle(Oracle):
    """What `random` acts and the `expert` earned in the first episodes of a split; played when first asked for.

    Args:
        make: makes the world.
        expert: who plays well.
        split: of the world.
        episodes: how many.
        place: which world it is, for messages.
    """

    best = "expert"

    def __init__(self, make: Callable[[], World], expert: Player, split: str, episodes: int, place: str) -> None:
        self._make, self._split, self._episodes, self._place = make, split, episodes, place
        self._players: Mapping[str, Player] = {"random": lambda _, number: random_acts(number), "expert": expert}

    @cached_property
    def references(self) -> Mapping[str, Reference]:
        """See `Oracle`: means over the episodes."""
        return {name: Reference(float(returns.mean()), costs, len(returns)) for name, (returns, costs) in self._played.items()}

    def score(self, values: Floats) -> Estimate:
        """See `Oracle`; of the episodes that all three played, which are resampled with what each earned in them.

        If the policy played fewer than the expert, the expert's lead over random acts is taken as it is over all of its own.

        Raises:
            ConfigError: that lead is not clear, so that there is nothing to measure by.
        """
        random, expert = self._played["random"][0], self._played["expert"][0]
        lead, gained = expert - random, values[: len(random)] - random[: len(values)]
        if not lead.mean() > _CLEAR * lead.std() / len(lead) ** 0.5:
            told = f"its expert earns {expert.mean():.3g} and random acts {random.mean():.3g} in {len(lead)} episodes"
            raise ConfigError(self._place, f"{told}, which is no clear yardstick; play more episodes, or find a better expert")
        if len(gained) == len(lead):
            return bootstrap_ratio(gained, lead)
        found = bootstrap(gained)
        return Estimate(*(value / float(lead.mean()) for value in (found.mean, found.low, found.high)))

    def action_values(self, states: Ints) -> Floats:
        """Nobody knows them.

        Raises:
            ConfigError: always.
        """
        self._refuse("what an act is worth there")

    def probabilities(self, reference: str, states: Ints) -> Floats:
        """Players look at the world, not at an information state.

        Raises:
            ConfigError: always.
        """
        self._refuse(f"what {reference} does in an information state there")

    def _refuse(self, what: str) -> NoReturn:
        raise ConfigError(self._place, f"nobody knows {what}: it is only played; take a world whose optimum is known")

    @cached_property
    def _played(self) -> Mapping[str, tuple[Floats, Mapping[str, float]]]:
        """Returns `[episodes]` and mean costs an episode of each player."""
        return {name: _roll_out(self._make(), player, self._split, self._episodes) for name, player in self._players.items()}


class PlayedDomain(Domain):
    """A domain that has an expert instead of an oracle.

    A subclass says who the expert is, names its acts and makes its worlds (`framework.worlds.gym_worlds.GymWorld` wraps those of gymnasium).

    Args:
        episodes: of each split in which random acts and the expert are played for comparison.
    """

    splits: tuple[str, ...] = ("train", "validation", "test")
    cost_limits: Mapping[str, float] = {}
    yardstick = "random acts score 0 and the expert 1"

    def __init__(self, episodes: Count = 200) -> None:
        self.episodes = episodes
        self._oracles: dict[str, PlayedOracle] = {}

    @abstractmethod
    def expert(self, world: World, number: int) -> Choose:
        """A player (see `Player`). An act that the mask forbids means that it does not know what to do."""

    def oracle(self, split: str) -> PlayedOracle:
        """See `Domain`; played once."""
        if split not in self._oracles:
            place = f"domain {self.name}/{self.environment}"
            self._oracles[split] = PlayedOracle(
                lambda: self.make(split), self.expert, split, min(self.episodes, self.episodes_in(split) or self.episodes), place
            )
        return self._oracles[split]

    def demonstrations(self, split: str, seed: int, wander: float = 0.5, prices: Mapping[str, float] | None = None) -> Iterator[Demonstration]:
        """See `Domain`: the act of the expert is worth 1 and every other 0, which is what it would do and not what it would earn.

        Where it knows no act, chance goes on.
        """
        if prices:
            self.oracle(split).charged_values(np.empty((0, 0), np.int64), prices)
        world, rng = self.make(split), np.random.default_rng(seed)
        while True:
            number = int(rng.integers(2**27))
            text, info = world.reset(seed=episode_seed(split, number))
            choose, ended = self.expert(world, number), False
            while not ended:
                mask = info["action_mask"]
                act = choose(world, mask)
                known = 0 <= act < len(mask) and bool(mask[act])
                if known:
                    yield Demonstration(text, mask, np.where(mask, np.arange(len(mask)) == act, -np.inf), world.information_state())
                act = act if known and rng.random() >= wander else int(rng.choice(np.flatnonzero(mask)))
                text, _, terminated, truncated, info = world.step(act)
                ended = terminated or truncated


def _roll_out(world: World, player: Player, split: str, episodes: int) -> tuple[Floats, Mapping[str, float]]:
    """Returns and mean costs of a player over the first episodes of a split."""
    returns, costs = np.zeros(episodes), dict[str, float]()
    for number in range(episodes):
        world.reset(seed=episode_seed(split, number))
        for turn in onwards(world, player(world, number)):
            returns[number] += turn.reward
            for name, cost in turn.info["costs"].items():
                costs[name] = costs.get(name, 0.0) + cost / episodes
    return returns, costs
