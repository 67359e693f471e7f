"""What it takes to climb a reward: a pool of courses whose gold is known, and pairs of courses that a teacher has judged, in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from framework.errors import ConfigError
from framework.interfaces import Domain
from framework.preferences.behaviours import Behaviour, Played, Role, Stage, chosen_by_lot
from framework.preferences.teachers import Pool, Teacher, words
from framework.preferences.trajectories import Turn
from framework.progress import Tell
from framework.seeding import episode_seed
from framework.types import Conversation, Floats, Ints, Message, Preference

_BLOCK = 128  # pairs played side by side
_DRAWS = 50  # a pair, before there is said to be too little to ask about


@dataclass(frozen=True)
class Players:
    """Who plays: references of the oracle, how often against the others, and the share of their acts that is taken at random instead."""

    weights: Mapping[str, float]
    wander: float

    def role(self, seed: int, rng: np.random.Generator) -> Role:
        """One of them in an episode, by chance."""
        return Role(seed, Behaviour(chosen_by_lot(self.weights, rng), self.wander), int(rng.integers(2**62)))


@dataclass(frozen=True)
class Trajectories:
    """P starts × N trajectories of each; T: their distinct turns.

    Attributes:
        turns: `[T]`.
        places: which turns, one trajectory's after the other's.
        lengths: turns of each trajectory, `[P · N]`.
        shape: P, N.
        gold: by `reward` and `regret`: the sum over a trajectory's turns, `[P, N]`.
        controls: ways to score that read nothing, and the domain's own exploitable proxy, `[P, N]`.
    """

    turns: Sequence[Turn]
    places: Ints
    lengths: Ints
    shape: tuple[int, int]
    gold: Mapping[str, Floats]
    controls: Mapping[str, Floats]

    def totals(self, scores: Floats) -> Floats:
        """Sums over trajectories, `[P, N]`, of scores of the distinct turns, `[T]`."""
        owners = np.repeat(np.arange(len(self.lengths)), self.lengths)
        return np.asarray(np.bincount(owners, weights=scores[self.places], minlength=len(self.lengths)).reshape(self.shape), np.float64)


def play_trajectories(domain: Domain, split: str, players: Players, shape: tuple[int, int], seed: int, tell: Tell) -> Trajectories:
    """Plays P starts × N trajectories; `tell` hears how many starts are done."""
    stage, world, rng = Stage(domain, split), domain.make(split), np.random.default_rng([seed, 0])
    number = int(rng.integers(2**27))
    numbers, places, lengths, worth = dict[Turn, int](), list[int](), list[int](), list[tuple[float, ...]]()
    for start in range(shape[0]):
        for played in stage.play([players.role(episode_seed(split, number + start), rng) for _ in range(shape[1])]):
            turns = list(zip(played.observations, played.said, strict=True))
            places += [numbers.setdefault(turn, len(numbers)) for turn in turns]
            lengths.append(len(turns))
            world.reset(seed=played.role.seed)
            proxy = sum(float(world.step(act)[4]["proxy"]) for act in played.acts)
            worth.append((sum(played.reward), sum(played.regret), proxy, float(words(played.said)), -float(len(turns))))
        tell(start + 1)
    reward, regret, *others = (column.reshape(shape) for column in np.array(worth).T)
    controls = dict(zip(("domain proxy", "longer", "fewer turns"), others, strict=True))
    return Trajectories(list(numbers), np.array(places), np.array(lengths), shape, {"reward": reward, "regret": regret}, controls)


def judged_pairs(domain: Domain, players: Players, teacher: Teacher, pool: Pool, seed: int) -> Iterator[Preference]:
    """Endless pairs of the training split, both trajectories with the same start, as a teacher judged them; ties are among them.

    The first of them are the same however many are drawn, and whoever judges.

    Raises:
        ConfigError: too few trajectories differ, or too few are judged.
    """
    stage, playing, judging = Stage(domain, "train"), np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
    number, drawn, made = int(playing.integers(2**27)), 0, 0
    while True:
        seeds = [episode_seed("train", number + place) for place in range(_BLOCK)]
        number += _BLOCK
        played = stage.play([players.role(each, playing) for each in seeds for _ in range(2)])
        for first, second in zip(played[::2], played[1::2], strict=True):
            drawn += 1
            if first.said != second.said and (pair := _judged(first, second, teacher, pool, judging)):
                made += 1
                yield pair
        if drawn > _DRAWS * max(made, _BLOCK):
            raise ConfigError("experiment.behaviours", f"of {drawn:,} pairs only {made:,} were worth asking about; let more behaviours play, or raise wander")


def first_pairs(pairs: Iterator[Preference], count: int) -> list[Preference]:
    """So many of endless ones."""
    return list(islice(pairs, count))


def _judged(first: Played, second: Played, teacher: Teacher, pool: Pool, rng: np.random.Generator) -> Preference | None:
    one, other = (played.segment(teacher.gold) for played in (first, second))
    if (verdict := teacher.judge(one, other, pool, rng)) is None:
        return None
    return Preference(_conversation(first), _conversation(second), verdict.label, verdict.probability, float(one.gold.sum() - other.gold.sum()))


def _conversation(played: Played) -> Conversation:
    turns = zip(played.observations, played.said, strict=True)
    return Conversation([message for seen, said in turns for message in (Message("user", seen), Message("assistant", said))])
