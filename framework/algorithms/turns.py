"""Worlds played in words, side by side and to the end, and their turns as a batch to learn from.

What was sampled is what is learnt from: token ids and log-probabilities are kept as they were drawn. An episode that the clock ends
has earned what it has earned: time is part of the task, and evaluation too counts as lost what was still to be had.

E: episodes, B: turns of all of them, N: draws of all turns (tokens said, or acts picked).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from torch import Tensor

from framework.errors import TrainingError
from framework.interfaces import SpeakingPolicy, World
from framework.types import Bools, Observations, Reply, Utterance
from framework.worlds.rewarded import announce


@dataclass(frozen=True, slots=True)
class Turn:
    """What was said, and what it earned at once."""

    said: Utterance
    reward: float


@dataclass(slots=True)
class Played:
    """An episode; `terminated` if it ended of itself, `truncated` if the clock ended it."""

    turns: list[Turn] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False

    @property
    def total(self) -> float:
        """Sum of its rewards."""
        return sum(turn.reward for turn in self.turns)


def play(policy: SpeakingPolicy, worlds: Sequence[World], seeds: Sequence[int]) -> list[Played]:
    """One episode in each world; equal seeds are the same situation, with the same chances to come.

    Raises:
        TrainingError: a reward is no number.
    """
    episodes = [Played() for _ in worlds]
    shown = []
    for world, episode, seed in zip(worlds, episodes, seeds, strict=True):
        text, info = world.reset(seed=seed)
        shown.append((world, episode, text, info["action_mask"]))
    with policy.playing():
        _to_the_end(policy, shown)
    return episodes


def _to_the_end(policy: SpeakingPolicy, shown: list[tuple[World, Played, str, Bools]]) -> None:
    """Plays on, from what each world shows and which acts it allows."""
    while shown:
        observations = Observations([text for _, _, text, _ in shown], np.stack([mask for *_, mask in shown]), np.zeros((len(shown), 0), np.int64))
        replies, going = policy.say(observations), []
        announce([world for world, *_ in shown], [Reply(said.act, said.text) for said in replies])
        for (world, episode, _, _), said in zip(shown, replies, strict=True):
            text, reward, episode.terminated, episode.truncated, info = world.idle() if said.act < 0 else world.step(said.act)
            if not math.isfinite(reward):
                raise TrainingError(f"{said.text!r} was given a reward of {reward}; mend the world's numbers: experiment=check_domain finds where")
            episode.turns.append(Turn(said, float(reward)))
            if not (episode.terminated or episode.truncated):
                going.append((world, episode, text, info["action_mask"]))
        shown = going


@dataclass(frozen=True)
class Batch:
    """The turns of some episodes, one after the other."""

    played: Sequence[Played]  # [E]
    said: Sequence[Utterance]  # [B]
    rewards: Tensor  # [B]
    episodes: Tensor  # [B] which episode a turn is of
    logprobs: Tensor  # [N] of the draws when they were drawn
    turns: Tensor  # [N] which turn a draw is of

    @classmethod
    def of(cls, played: Sequence[Played], device: torch.device) -> Self:
        """Lays episodes out."""
        turns = [turn for episode in played for turn in episode.turns]
        draws = [turn.said.logprobs for turn in turns]
        return cls(
            played,
            [turn.said for turn in turns],
            torch.tensor([turn.reward for turn in turns], device=device),
            torch.tensor(np.repeat(np.arange(len(played)), [len(episode.turns) for episode in played]), device=device),
            torch.tensor(np.concatenate(draws), dtype=torch.float32, device=device),
            torch.tensor(np.repeat(np.arange(len(turns)), list(map(len, draws))), device=device),
        )

    @property
    def totals(self) -> Tensor:
        """What each episode earned, `[E]`."""
        return torch.zeros(len(self.played), device=self.rewards.device).index_add(0, self.episodes, self.rewards)

    def flat(self, group: int) -> dict[str, float]:
        """Share of groups, of so many episodes each, in which all earned the same; for the record."""
        totals = self.totals.view(-1, group)
        return {"rollout/flat": float((totals.amax(1) == totals.amin(1)).float().mean()), "rollout/group": float(group)}

    def by_episode(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of turns `[B]` as a table `[E, T]`, 0 where an episode has no more turns; and where it has, a mask."""
        lengths = torch.bincount(self.episodes, minlength=len(self.played))
        mask = torch.arange(int(lengths.max()), device=numbers.device) < lengths[:, None]
        return torch.zeros(mask.shape, dtype=numbers.dtype, device=numbers.device).masked_scatter(mask, numbers), mask

    def utterances(self, rows: Tensor) -> Sequence[Utterance]:
        """What was said in some turns, `[b]`."""
        return [self.said[row] for row in rows.tolist()]

    def draws(self, rows: Tensor) -> Tensor:
        """Numbers of the draws of some turns `[b]`, in the turns' order, `[n]`."""
        counts = torch.bincount(self.turns, minlength=len(self.said))
        first, counts = (counts.cumsum(0) - counts)[rows], counts[rows]
        ends = counts.cumsum(0)
        return torch.arange(int(counts.sum()), device=rows.device) + torch.repeat_interleave(first - ends + counts, counts)

    def minibatches(self, size: int, epochs: int) -> Iterator[Tensor]:
        """Numbers of turns in parts of `size` or fewer, in a fresh order every epoch.

        Parts are as few as may be and of one size, give or take a turn: each is an update, and one of what few turns are left over would move the
        policy as far as the others do. Episodes are shuffled and their turns stay together, since what they have been shown begins alike
        and is then read once.
        """
        for _ in range(epochs):
            chance = torch.rand(len(self.played))[self.episodes.cpu()]
            yield from chance.argsort(stable=True).to(self.turns.device).tensor_split(math.ceil(len(self.said) / size))
