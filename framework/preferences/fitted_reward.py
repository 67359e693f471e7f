"""Rewards fitted to preferences: what is the same whoever reads the turns.

A trajectory is worth the sum of its turns, and the better of two is likelier to be chosen: P(chosen ≻ rejected) = σ(s_chosen − s_rejected)
(Bradley and Terry, 1952; of courses: Christiano et al., 2017, arXiv:1706.03741).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from framework.checkpoint import open_checkpoint
from framework.config import Count, NonNegative, Positive
from framework.errors import ConfigError, DataError, TrainingError
from framework.interfaces import LearnedReward, Learning
from framework.losses import bradley_terry
from framework.preferences.trajectories import Turn
from framework.types import Floats, Ints, Preference, Step

RECORD = "reward.json"
ACTS = "acts"
"""In the record, and as a column of pairs: `names`, or `words` in which acts are put; people's pairs do not say, and are in words."""
Backward = Callable[[Ints], float]
"""Sends the gradient of some pairs' mean loss backward, and returns that loss."""

_KEPT = 200_000  # turns whose scores are kept
_TOGETHER = 8_192  # turns scored in one call


@dataclass(frozen=True)
class Fitting:
    """How a reward is fitted.

    Attributes:
        epochs: passes over the pairs, if nothing ends them sooner.
        batch_size: pairs a step.
        learning_rate: at the start; falls linearly to zero.
        weight_decay: of AdamW.
        centring: keeps scores near 0 (see `framework.losses.bradley_terry`), where only their differences are known.
        margin: how much of a pair's known margin is asked for beyond a mere difference; 0: the truth is not looked at.
    """

    epochs: Count
    batch_size: Count
    learning_rate: Positive
    weight_decay: NonNegative
    centring: NonNegative
    margin: NonNegative

    def steps(self, pairs: int) -> int:
        """Updates of a whole fit to so many pairs."""
        return self.epochs * max(1, pairs // self.batch_size)


class FittedReward(LearnedReward):
    """A subclass says how turns are read, what of that learns, and what becomes of its members' scores.

    Args:
        path: of a fitted reward, which `prepare` loads; None while there is none.
        fitting: how.
    """

    members = 1  # M, fitted side by side
    signs: tuple[str, ...] = ()  # of doubt, that it reads together with a turn's scores

    def __init__(self, path: str | None, fitting: Fitting) -> None:
        self.path, self.fitting = path, fitting
        self._known: dict[Turn, Floats] = {}

    @property
    @abstractmethod
    def fitted(self) -> bool:
        """Whether there is something to score with."""

    @abstractmethod
    def begin(self, preferences: Sequence[Preference], run: Learning) -> tuple[Sequence[nn.Parameter], Backward]:
        """Makes the reward anew for these pairs, whose rows are what `Backward` is given.

        Returns:
            what learns, and the way of the gradient to it.
        """

    @abstractmethod
    def read(self, turns: Sequence[Turn]) -> Floats:
        """What each member gives to turns, and after that a column for each of `signs`, `[T, M + S]`; called without gradients."""

    @abstractmethod
    def aggregate(self, scores: Floats) -> Floats:
        """One score a turn, `[T]`, of the members' `[T, M]`."""

    @property
    def home(self) -> torch.device:
        """Where `prepare` puts the reward: one turn at a time is soonest scored on the processor."""
        return torch.device("cpu")

    def steps(self, pairs: int) -> int:
        """Updates of a whole fit."""
        return self.fitting.steps(pairs)

    def prepare(self, observations: Sequence[str]) -> None:
        """Loads what was fitted.

        Raises:
            ConfigError: there is nothing to load.
            CheckpointError: it cannot be used here.
        """
        if self.path is None and not self.fitted:
            raise ConfigError("reward.path", "must be given: the directory of a fitted reward, as experiment=fit_reward leaves it")
        if self.path is not None:
            self.load(open_checkpoint(Path(self.path).expanduser())[0], self.home)

    def expect(self, turns: Sequence[Step]) -> None:
        """See `RewardModel`."""
        self._read(self.turns(turns))

    def doubts(self, turns: Sequence[Step]) -> Mapping[str, Floats]:
        """See `RewardModel`: `signs`."""
        return dict(zip(self.signs, self._read(self.turns(turns)).T[self.members :], strict=True))

    def score(self, turns: Sequence[Step]) -> Floats:
        """See `RewardModel`; a turn met before costs a look-up."""
        return self.aggregate(self.member_scores(self.turns(turns)))

    @property
    def acts(self) -> str:
        """How they stand in the pairs that it was fitted to."""
        return "words" if self.words else "names"

    def turns(self, steps: Sequence[Step]) -> list[Turn]:
        """What it reads of steps."""
        return [(step.observation, step.reply if self.words else step.act) for step in steps]

    def member_scores(self, turns: Sequence[Turn]) -> Floats:
        """What each member gives, `[T, M]`.

        Raises:
            ConfigError: nothing is fitted.
        """
        return self._read(turns)[:, : self.members]

    @torch.no_grad()
    def _read(self, turns: Sequence[Turn]) -> Floats:
        """See `read`."""
        if not self.fitted:
            raise not_fitted()
        if len(self._known) > _KEPT:
            self._known.clear()
        new = list(dict.fromkeys(turn for turn in turns if turn not in self._known))
        for first in range(0, len(new), _TOGETHER):
            part = new[first : first + _TOGETHER]
            self._known.update(zip(part, self.read(part), strict=True))
        return np.array([self._known[turn] for turn in turns]).reshape(len(turns), self.members + len(self.signs))

    def fit(self, preferences: Sequence[Preference], run: Learning) -> None:
        """See `LearnedReward`.

        Raises:
            DataError: there are no pairs.
            TrainingError: the loss is no number.
        """
        if not preferences:
            raise DataError("preferences: there are none to fit a reward to; give more rows")
        self.words = any(pair.chosen.fields.get(ACTS) != "names" for pair in preferences)
        with torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []):
            torch.manual_seed(run.seed)
            learning, backward = self.begin(preferences, run)
            for step, loss in descend(learning, backward, self.fitting, len(preferences), run.seed):
                self._known.clear()
                if not run.progress(step, {"train/loss": loss}):
                    break
        self._known.clear()
        self.remember()

    def remember(self) -> None:
        """Notes where the turns lie that it was fitted to, as it is now, for signs that are measured from there; one that was loaded knows it already."""


def not_fitted() -> ConfigError:
    """What is told to who asks too soon."""
    return ConfigError("reward", "is not fitted yet; fit it, or load one that is")


def descend(learning: Sequence[nn.Parameter], backward: Backward, fitting: Fitting, pairs: int, seed: int) -> Iterator[tuple[int, float]]:
    """AdamW over batches of pairs: after each update its number and the loss before it.

    Raises:
        TrainingError: the loss is no number; nothing is changed by it.
    """
    total = fitting.steps(pairs)
    optimizer = torch.optim.AdamW(learning, fitting.learning_rate, weight_decay=fitting.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=total)
    for step, rows in enumerate(_batches(pairs, fitting.batch_size, total, seed), start=1):
        optimizer.zero_grad()
        loss = backward(rows)
        if not np.isfinite(loss):
            raise TrainingError("the reward's loss is no number any more, and nothing is kept of this update. Try a lower reward.fitting.learning_rate")
        optimizer.step()
        schedule.step()
        yield step, loss


def pair_losses(chosen: Tensor, rejected: Tensor, labels: Tensor, margins: Tensor, centring: float) -> Tensor:
    """Cross-entropy of the label and σ(s_chosen − s_rejected − margin), and centring, `[N]` from trajectories' scores, labels and margins `[N]` each."""
    return labels * bradley_terry(chosen, rejected, margins, centring) + (1 - labels) * bradley_terry(rejected, chosen, -margins, centring)


def asked_of(preferences: Sequence[Preference], margin: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Labels, and margins in units of scores, `[N]` each in float32; a margin that is not known or below 0 asks for nothing."""
    labels = [pair.label for pair in preferences]
    margins = margin * np.nan_to_num([max(0.0, pair.margin) for pair in preferences])
    return torch.tensor(labels, dtype=torch.float32, device=device), torch.as_tensor(margins, dtype=torch.float32, device=device)


def _batches(count: int, size: int, steps: int, seed: int) -> Iterator[Ints]:
    """Whole batches of fresh permutations, as many as there are steps; of fewer pairs than a batch holds, all of them."""
    rng, made, size = np.random.default_rng(seed), 0, min(size, count)
    while made < steps:
        order = rng.permutation(count)
        for first in range(0, count - count % size, size):
            if made < steps:
                made += 1
                yield order[first : first + size]
