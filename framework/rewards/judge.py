"""`reward=judge`: another language model reads the situation and what was said, and gives points.

Judges can be talked to, and some pay for a colon: "One Token to Fool LLM-as-a-Judge" (Zhao et al., 2025, arXiv:2507.08794) had up to 90 % of
empty answers accepted. So what is judged stands between marks that it cannot forge, an answer counts only in the form asked for, and before
anything is learnt from a judge it must turn down a list of known tricks (`canaries.yaml`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
        tolerated: NonNegativeCount,
    ) -> None:
        if not low < high:
            raise ValueError(f"low {low:g} must be below high {high:g}")
        self.endpoint, self.model, self.rubric, self.low, self.high, self.tolerated = endpoint, model, rubric, low, high, tolerated
        self._sampling = {"temperature": temperature, "max_completion_tokens": max_tokens}
        self._proved = False
        self._expected: dict[tuple[str, str], float] = {}

    def prepare(self, observations: Sequence[str]) -> None:
        """Scores the known tricks in the first situation.

        Raises:
            ConfigError: the judge pays more of them than are tolerated, or gives no usable answer to more than half.
        """
        canaries = yaml.safe_load(CANARIES.read_text(encoding="utf-8"))
        scores = self._points([(observations[0], canary) for canary in canaries])
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
            self._expected = dict(zip(distinct, self._points(distinct).tolist(), strict=True))

    def score(self, turns: Sequence[Step]) -> Floats:
        """Points for what was said, or the name of an act of who says nothing, in the light of what was seen; NaN where the judge gives no usable answer.

        Raises:
            ConfigError: see `prepare`, which is done first where it was not.
        """
        if turns and not self._proved:
            self.prepare([turns[0].observation])
        asked = [(turn.observation, turn.reply) for turn in turns]
        unexpected = [reply for reply in asked if reply not in self._expected]
        points = self._expected | dict(zip(unexpected, self._points(unexpected).tolist(), strict=True))
        return np.array([points[reply] for reply in asked], dtype=np.float64)

    def prefer(self, observation: str, first: str, second: str) -> float:
        """How far the first of two replies is preferred: 1, 0.5 or 0, asked in both orders and averaged, so that the place of a reply earns nothing.

        NaN where either answer is unusable.
        """
        forward, backward = self._better(observation, first, second), self._better(observation, second, first)
        return (forward + 1 - backward) / 2

    def metrics(self) -> Mapping[str, float]:
        """See `RewardModel`."""
        return self.endpoint.metrics()

    def _points(self, replies: Sequence[tuple[str, str]]) -> Floats:
        with ThreadPoolExecutor(self.endpoint.concurrency) as pool:
            return np.array(list(pool.map(self._point, replies)), dtype=np.float64)

    def _point(self, reply: tuple[str, str]) -> float:
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
