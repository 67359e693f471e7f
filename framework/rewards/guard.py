"""Between a reward and a learner: whatever a reward function does wrong, the learner sees a number or a blank, never nonsense.

A reward that raises, hangs, or returns None, NaN, an infinity, another number of values or another type has abstained: the turn's
reward is NaN, for which nobody is paid more or less than usual (`framework.worlds.rewarded`), and it is counted. Where abstaining is no exception,
the run stops.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from framework.errors import TrainingError, UserError
from framework.interfaces import RewardModel
from framework.types import Floats, Step

_RECENT = 1_000  # turns over which the share is taken
_FEWEST = 100  # a share of fewer is taken as if of so many: two blanks among the first ten are no pattern yet


class Guard(RewardModel):
    """A reward that may be trusted to answer, around one that may not.

    Args:
        reward: what is guarded.
        most_abstained: share of recent turns without a reward above which the run stops.
        time_limit_s: for one call.
    """

    def __init__(self, reward: RewardModel, most_abstained: float, time_limit_s: float) -> None:
        self.reward, self.most_abstained, self.time_limit_s = reward, most_abstained, time_limit_s
        self._recent: deque[bool] = deque(maxlen=_RECENT)
        self._why: Counter[str] = Counter()
        self._scored = self._abstained = 0  # since metrics were last asked for
        self._worker: _Worker | None = None

    def prepare(self, observations: Sequence[str]) -> None:
        """See `RewardModel`."""
        self.reward.prepare(observations)

    def expect(self, turns: Sequence[Step]) -> None:
        """See `RewardModel`; what goes wrong here does so again when a score is asked for, and is counted then."""
        with suppress(Exception):
            self._ask(self.reward.expect, turns)

    def score(self, turns: Sequence[Step]) -> Floats:
        """A number for each turn, or NaN where the reward has abstained.

        Raises:
            TrainingError: it abstains from too many.
            UserError: the reward itself says that the run must not go on.
        """
        scores = self._checked(turns)
        blank = np.isnan(scores)
        self._recent.extend(blank)
        self._scored += len(turns)
        self._abstained += int(blank.sum())
        if blank.any() and (lacking := sum(self._recent)) > self.most_abstained * max(len(self._recent), _FEWEST):
            told = "; ".join(f"{count} times {why}" for why, count in self._why.most_common(3))
            raise TrainingError(
                f"{type(self.reward).__name__} gave no usable reward for {lacking} of the last {len(self._recent)} turns, and a share of at most "
                f"{self.most_abstained:g} may lack one ({told}). Mend the reward, or allow more with experiment.most_abstained"
            )
        return scores

    def doubts(self, turns: Sequence[Step]) -> Mapping[str, Floats]:
        """See `RewardModel`."""
        return self.reward.doubts(turns)

    def metrics(self) -> Mapping[str, float]:
        """Share of turns without a reward, and what the reward says itself."""
        share = {"abstained": self._abstained / self._scored} if self._scored else {}
        self._scored = self._abstained = 0
        return {**share, **self.reward.metrics()}

    def _checked(self, turns: Sequence[Step]) -> Floats:
        """Scores that are numbers or NaN; why, where they are NaN, is noted."""
        blank = np.full(len(turns), np.nan)
        try:
            scores = self._ask(self.reward.score, turns)
        except Empty:
            return self._note(f"no answer in {self.time_limit_s:g} s", blank)
        except UserError:
            raise
        except Exception as error:  # anything at all may come from a reward function
            return self._note(f"{type(error).__name__}: {error}"[:200], blank)
        if scores is None or isinstance(scores, (str, bytes, Mapping)):
            return self._note(f"{type(scores).__name__} instead of numbers", blank)
        try:
            numbers = np.array([np.nan if score is None else score for score in scores], dtype=np.float64)
        except (TypeError, ValueError):
            return self._note(f"{type(scores).__name__} instead of numbers", blank)
        if numbers.shape != blank.shape:
            return self._note(f"values of shape {list(numbers.shape)} for {len(turns)} turns", blank)
        numbers[~np.isfinite(numbers)] = np.nan
        if np.isnan(numbers).any():
            self._why["a value that is no number"] += int(np.isnan(numbers).sum())
        return numbers

    def _ask(self, what: Callable[[Any], Any], turns: Sequence[Any]) -> Any:
        """What the reward answers; whatever it raises, and `Empty` where it takes too long."""
        self._worker = self._worker or _Worker()
        try:
            return self._worker.ask(what, turns, self.time_limit_s)
        except Empty:
            self._worker = None  # a thread cannot be stopped; it is left to itself
            raise

    def _note(self, why: str, blank: Floats) -> Floats:
        self._why[why] += len(blank)
        return blank


class _Worker:
    """A thread that asks a reward, so that whoever waits for the answer can stop waiting."""

    def __init__(self) -> None:
        self._asked: SimpleQueue[tuple[Callable[[Any], Any], Sequence[Any]]] = SimpleQueue()
        self._answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def ask(self, what: Callable[[Any], Any], turns: Sequence[Any], time_limit_s: float) -> Any:
        """The answer.

        Raises:
            Empty: there is none within the limit; the worker is of no more use.
        """
        self._asked.put((what, turns))
        answer, error = self._answers.get(timeout=time_limit_s)
        if error is not None:
            raise error
        return answer

    def _work(self) -> None:
        while True:
            what, turns = self._asked.get()
            try:
                self._answers.put((what(turns), None))
            except BaseException as error:
                self._answers.put((None, error))
