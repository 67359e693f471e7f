"""Episodes played side by side by policies of mixed strength, written down turn by turn with what each act was truly worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np

from framework.errors import ConfigError, near
from framework.interfaces import Domain, Policy, World
from framework.preferences.teachers import Segment, courtesy, words
from framework.types import Bools, Floats, Grounds, Ints, Observations
from framework.worlds.free_text import Phrasebook
from framework.worlds.given_away import cut_short

POLICY = "policy"  # the name of a learnt policy among the behaviours
Name = TypeVar("Name", bound=str)
_TOGETHER = 256  # episodes played side by side


@dataclass(frozen=True)
class Behaviour:
    """Who plays: a reference of the oracle, or a learnt policy, that takes some share of its acts at random instead."""

    name: str
    wander: float = 0.0

    def __str__(self) -> str:
        return f"{self.name}+{self.wander:g}" if self.wander and self.name != "random" else self.name


@dataclass(frozen=True)
class Role:
    """An episode to be played.

    Attributes:
        seed: of the episode.
        behaviour: who plays it.
        chance: seed of its acts and words.
        courteous: whether courtesies are said with the acts, where they are put in words.
        script: acts that are taken first, whoever plays.
        turns: after which the playing ends; None: at the end of the episode.
    """

    seed: int
    behaviour: Behaviour
    chance: int
    courteous: bool = False
    script: tuple[int, ...] = ()
    turns: int | None = None


@dataclass
class Played:
    """An episode as it was played; T: its turns."""

    role: Role
    observations: list[str] = field(default_factory=list)  # [T] before each act
    acts: list[int] = field(default_factory=list)  # [T]
    said: list[str] = field(default_factory=list)  # [T] the acts' names, or what they were put in
    choices: list[int] = field(default_factory=list)  # [T] acts that were allowed
    reward: list[float] = field(default_factory=list)  # [T]
    regret: list[float] = field(default_factory=list)  # [T] Q*(s, a) - V*(s); what was still to be had is lost at the end of the clock

    def segment(self, gold: Literal["reward", "regret"], turns: Sequence[int] | None = None) -> Segment:
        """Some of its turns, or all, as a teacher judges them."""
        shown = range(len(self.acts)) if turns is None else turns
        worth, said = {"reward": self.reward, "regret": self.regret}[gold], [self.said[turn] for turn in shown]
        return Segment(np.array([worth[turn] for turn in shown]), words(said), courtesy(said))


@dataclass
class _Seat:
    """A world in which an episode is under way."""

    played: Played
    world: World
    rng: np.random.Generator
    text: str
    mask: Bools
    ended: bool = False


def chosen_by_lot(weights: Mapping[Name, float], rng: np.random.Generator) -> Name:
    """One of the names, by how often it is to come up against the others."""
    shares = np.array(list(weights.values()))
    return list(weights)[int(rng.choice(len(shares), p=shares / shares.sum()))]


class Stage:
    """Where the episodes of a split are played.

    Args:
        domain: the world.
        split: of the domain.
        policy: who plays under the name `policy`.
        book: puts acts in words; None: an act is said by its name.
        courtesies: what courteous players say before an act.
    """

    def __init__(self, domain: Domain, split: str, policy: Policy | None = None, book: Phrasebook | None = None, courtesies: Sequence[str] = ()) -> None:
        self.oracle, self.policy, self.book, self.courtesies = domain.oracle(split), policy, book, courtesies
        self._make, self._worlds = (lambda: domain.make(split)), list[World]()

    def check(self, names: Sequence[str], place: str) -> None:
        """Whether all that are named can play.

        Raises:
            ConfigError: one cannot; names those who can.
        """
        for name in names:
            if not self.plays(name):
                raise ConfigError(f"{place}.{name}", f"nobody of this name can play{near(name, filter(self.plays, self.oracle.references))}")

    def plays(self, name: str) -> bool:
        """Whether somebody of this name can play."""
        world = self._make()
        world.reset(seed=0)
        try:
            return (name == POLICY and self.policy is not None) or bool(self.oracle.probabilities(name, _states([world])).size)
        except KeyError:  # no reference, or one that only has a value
            return False

    def play(self, roles: Sequence[Role]) -> list[Played]:
        """Plays episodes to their ends."""
        while len(self._worlds) < min(len(roles), _TOGETHER):
            self._worlds.append(self._make())
        played: list[Played] = []
        for first in range(0, len(roles), _TOGETHER):
            seats = [self._seat(role, world) for role, world in zip(roles[first : first + _TOGETHER], self._worlds, strict=False)]
            while playing := [seat for seat in seats if not seat.ended]:
                self._turn(playing)
            played += [seat.played for seat in seats]
        return played

    def _seat(self, role: Role, world: World) -> _Seat:
        text, info = world.reset(seed=role.seed)
        return _Seat(Played(role), world, np.random.default_rng(role.chance), text, info["action_mask"])

    def _turn(self, playing: Sequence[_Seat]) -> None:
        """One act in each of some worlds."""
        states = _states([seat.world for seat in playing])
        values = self.oracle.action_values(states)
        cumulated = self._chances(playing, states).cumsum(axis=1)
        for row, seat in enumerate(playing):
            script, turn, drawn = seat.played.role.script, len(seat.played.acts), seat.rng.random()
            act = script[turn] if turn < len(script) else int(np.searchsorted(cumulated[row], drawn * cumulated[row, -1], side="right"))
            lost = self._step(seat, act)
            seat.played.regret.append(float(values[row, act] - values[row].max()) + lost)

    def _chances(self, playing: Sequence[_Seat], states: Ints) -> Floats:
        """What each seat's behaviour does, `[B, A]`."""
        masks = np.stack([seat.mask for seat in playing])
        even = masks / masks.sum(axis=1, keepdims=True)
        names = np.array([seat.played.role.behaviour.name for seat in playing])
        wander = np.array([[seat.played.role.behaviour.wander] for seat in playing])
        chances = np.zeros(masks.shape)
        for name in dict.fromkeys(names.tolist()):
            rows = np.flatnonzero(names == name)
            if name == POLICY and self.policy is not None:
                drawn = self.policy.act(Observations([playing[int(row)].text for row in rows], masks[rows], states[rows]))
                chances[rows[drawn >= 0], drawn[drawn >= 0]] = 1.0
                chances[rows[drawn < 0]] = even[rows[drawn < 0]]  # nothing was understood
            else:
                chances[rows] = self.oracle.probabilities(name, states[rows])
        return np.asarray((1 - wander) * chances / chances.sum(axis=1, keepdims=True) + wander * even)

    def _step(self, seat: _Seat, act: int) -> float:
        """Takes an act and writes it down; returns what is lost by the clock, if it ends the episode."""
        played, grounds = seat.played, seat.world.grounds() if self.book else None
        played.observations.append(seat.text)
        played.choices.append(int(seat.mask.sum()))
        seat.text, reward, terminated, truncated, info = seat.world.step(act)
        played.acts.append(act)
        played.reward.append(float(reward))
        played.said.append(self._say(seat, act, grounds if terminated else None))
        seat.mask = info["action_mask"]
        seat.ended = terminated or truncated or len(played.acts) == played.role.turns
        return cut_short(self.oracle, seat.world.information_state(), info["reward_terms"]) if truncated else 0.0

    def _say(self, seat: _Seat, act: int, grounds: Grounds | None) -> str:
        """An act by its name or in words, which are understood as it."""
        if self.book is None:
            return seat.world.acts[act]
        said = self.book.express(act, grounds, seat.rng)
        courteous = f"{seat.rng.choice(np.array(self.courtesies))} {said}" if seat.played.role.courteous and self.courtesies else said
        return courteous if self.book.understand(courteous) == act else said


def _states(worlds: Sequence[World]) -> Ints:
    return np.array([world.information_state() for world in worlds], dtype=np.int64)
