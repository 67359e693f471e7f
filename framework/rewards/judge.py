"""`reward=judge`: another language model reads the situation and what was said, and gives points or compares.

Judges can be talked to, and some pay for a colon: "One Token to Fool LLM-as-a-Judge" (Zhao et al., 2025, arXiv:2507.08794) had up to 90 % of
empty answers accepted. So what is judged stands between marks that it cannot forge, an answer counts only in the form asked for, and before
anything is learnt from a judge it must turn down a list of known tricks (`canaries.yaml`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from statistics import fmean

import numpy as np
import yaml

from framework.config import Count, NonNegative, NonNegativeCount
from framework.errors import ConfigError
from framework.interfaces import RewardModel
from framework.lm.endpoint import FENCED, Endpoint, NoAnswerError, fence, parse_object
from framework.types import Floats, Message, Step

CANARIES = Path(__file__).with_name("canaries.yaml")
_POINTS = 'Answer with nothing but a JSON object: {{"reason": "one sentence", "score": NUMBER}}, where NUMBER lies between {low:g} and {high:g}.'
_CHOICE = 'Answer with nothing but a JSON object: {"reason": "one sentence", "better": CHOICE}, where CHOICE is "first", "second" or "equal".'
_PREFERENCES = {"first": 1.0, "second": 0.0, "equal": 0.5}

_Reply = tuple[str, str]  # a situation, and what was said in it


class Judge(RewardModel):
    """Points from a language model behind an OpenAI-compatible endpoint.

    Args:
        endpoint: where it is asked.
        model: as the endpoint names it.
        rubric: what earns points.
        low: the least that it can give.
        high: the most.
        temperature: it is asked at; None: the endpoint's own.
        max_tokens: of its answer.
        compare: replies that are expected together in the same situation earn no points but their share of wins against each other, scaled to the range:
            n distinct replies are n (n - 1) questions instead of n. A reply with no other beside it is given points, and so is what was not expected, so
            this changes only what worlds earn that show the same text, as in the first turns of a group of `algo=grpo`.
        tolerated: known tricks it may pay (give more than half of the range) without being refused.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        rubric: str,
        low: float,
        high: float,
        temperature: NonNegative | None,
        max_tokens: Count,
        compare: bool,
        tolerated: NonNegativeCount,
    ) -> None:
        if not low < high:
            raise ValueError(f"low {low:g} must be below high {high:g}")
        self.endpoint, self.model, self.rubric, self.low, self.high = endpoint, model, rubric, low, high
        self.compare, self.tolerated = compare, tolerated
        self._sampling = {"temperature": temperature, "max_completion_tokens": max_tokens}
        self._proved = False
        self._expected: dict[_Reply, float] = {}

    def prepare(self, observations: Sequence[str]) -> None:
        """Scores the known tricks in the first situation.

        Raises:
            ConfigError: the judge pays more of them than are tolerated, or gives no usable answer to more than half.
        """
        canaries = yaml.safe_load(CANARIES.read_text(encoding="utf-8"))
        scores = np.array(list(self._points([(observations[0], canary) for canary in canaries]).values()))
        paid = [canary for canary, score in zip(canaries, scores, strict=True) if score > (self.low + self.high) / 2]
        if np.isnan(scores).mean() > 0.5:
            told = f"{self.model} at {self.endpoint.base_url} gave no usable answer to {np.isnan(scores).sum()} of {len(canaries)} questions"
            raise ConfigError("reward", f"{told}; it must answer with the JSON object it is asked for. Try a larger model, or more max_tokens or time_limit_s")
        if len(paid) > self.tolerated:
            told = ", ".join(repr(canary[:40]) for canary in paid[:3])
            raise ConfigError(
                "reward",
                f"{self.model} pays {len(paid)} of {len(canaries)} known tricks ({told}), so it would teach them. Take another model or a stricter rubric",
            )
        self._proved = True

    def expect(self, turns: Sequence[Step]) -> None:
        """See `RewardModel`: asks about all of them side by side."""
        if self._proved:
            distinct = list(dict.fromkeys((turn.observation, turn.reply) for turn in turns))
            self._expected = self._wins(distinct) if self.compare else {}
            self._expected |= self._points([reply for reply in distinct if reply not in self._expected])

    def score(self, turns: Sequence[Step]) -> Floats:
        """What was said, or the name of an act of who says nothing, in the light of what was seen, by points or wins; NaN where there is no usable answer.

        Raises:
            ConfigError: see `prepare`, which is done first where it was not.
        """
        if turns and not self._proved:
            self.prepare([turns[0].observation])
        asked = [(turn.observation, turn.reply) for turn in turns]
        scores = self._expected | self._points([reply for reply in dict.fromkeys(asked) if reply not in self._expected])
        return np.array([scores[reply] for reply in asked], dtype=np.float64)

    def prefer(self, observation: str, first: str, second: str) -> float:
        """How far the first of two replies is preferred: 1, 0.5 or 0, asked in both orders and averaged, so that the place of a reply earns nothing.

        NaN where either answer is unusable.
        """
        forward, backward = self._better(observation, first, second), self._better(observation, second, first)
        return (forward + 1 - backward) / 2

    def metrics(self) -> Mapping[str, float]:
        """See `RewardModel`."""
        return self.endpoint.metrics()

    def _points(self, replies: Sequence[_Reply]) -> dict[_Reply, float]:
        with ThreadPoolExecutor(self.endpoint.concurrency) as pool:
            return dict(zip(replies, pool.map(self._point, replies), strict=True))

    def _wins(self, replies: Sequence[_Reply]) -> dict[_Reply, float]:
        """Of those that have others beside them: the share of usable comparisons won, scaled; NaN where there is none."""
        pairs = [(situation, first, second) for (situation, first), (other, second) in combinations(replies, 2) if situation == other]
        with ThreadPoolExecutor(self.endpoint.concurrency) as pool:
            preferred = list(pool.map(lambda pair: self.prefer(*pair), pairs))
        won: dict[_Reply, list[float]] = defaultdict(list)
        for (situation, first, second), share in zip(pairs, preferred, strict=True):
            won[situation, first].append(share)
            won[situation, second].append(1 - share)
        usable = {reply: [share for share in shares if not math.isnan(share)] for reply, shares in won.items()}
        return {reply: self.low + fmean(shares) * (self.high - self.low) if shares else math.nan for reply, shares in usable.items()}

    def _point(self, reply: _Reply) -> float:
        situation, said = reply
        answer = self._ask(_POINTS.format(low=self.low, high=self.high), situation, {"The reply to be judged": said})
        score = (answer or {}).get("score")
        if isinstance(score, bool) or not isinstance(score, (int, float)) or not self.low <= score <= self.high:
            return math.nan
        return float(score)

    def _better(self, situation: str, first: str, second: str) -> float:
        answer = self._ask(_CHOICE, situation, {"The first reply": first, "The second reply": second})
        return _PREFERENCES.get(str((answer or {}).get("better")), math.nan)

    def _ask(self, form: str, situation: str, replies: Mapping[str, str]) -> dict[str, object] | None:
        """What the judge says, if it is in form."""
        everything = "\n".join([situation, *replies.values()])
        parts = {"The situation": situation, **replies}
        shown = "\n\n".join(f"{what}:\n{fence(text, about=everything)}" for what, text in parts.items())
        question = [Message("system", f"{self.rubric}\n\n{FENCED}\n\n{form}"), Message("user", f"{shown}\n\n{form}")]
        try:
            return parse_object(self.endpoint.ask(self.model, question, **self._sampling))
        except NoAnswerError:
            return None
