"""The suitability desk in words, and as a domain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from domains.finance.suitability_desk.model import TOPICS, Numbers, interview
from framework.config import Count, Fraction, NonNegative
from framework.types import Grounds
from framework.worlds.free_text import grounds_of
from framework.worlds.interview import Interview, InterviewDomain, InterviewWorld
from framework.worlds.wordings import Bank, bank_of, load_bank, pick

_WORDINGS = Path(__file__).parent / "wordings"
_ASIDE_EVERY = 3  # answers
_LABELS = {"self_rating": "self-rating", "liquidity": "early need", "restriction": "exclusions"}


class SuitabilityWorld(InterviewWorld):
    """`finance/SuitabilityDesk-v0`: one client, one interview, one recommendation."""

    def __init__(self, interview: Interview, bank: Bank, utterances: int) -> None:
        super().__init__(interview)
        self.bank, self.utterances = bank, utterances

    def opening(self, rng: np.random.Generator) -> list[str]:
        """Who sits down; nothing that matters."""
        occupations = self.bank["chat"]["occupation"]
        return [f"new client: {occupations[rng.integers(len(occupations))]}"]

    def answer(self, test: int, outcome: int, chance: float) -> list[str]:
        """The client's words, and now and then something beside the point."""
        if test == len(TOPICS):
            return ["the adviser explains risk with an example in pounds"]
        topic, values = list(TOPICS.items())[test]
        informed, value = divmod(outcome, len(values))
        label = _LABELS.get(topic, topic) + (", after the explanation" if informed else "")
        wordings, chance = pick(self.bank[topic][values[value]], self.utterances, chance)
        said, asides = [f"{label}: {wording}" for wording in wordings], self.bank["chat"]["aside"]
        aside = int(chance * _ASIDE_EVERY * len(asides))
        return said if aside >= len(asides) else [f"client: {asides[aside]}", *said]

    def grounds(self) -> Grounds:
        """What the client has answered, true or not."""
        answers = zip(TOPICS.items(), self.outcomes, strict=False)  # explaining, the last of the tests, has no answer
        heard = {topic: values[outcome % len(values)] for (topic, values), outcome in answers if outcome >= 0}
        return grounds_of(load_bank(_WORDINGS / "facts.yaml"), heard)


class SuitabilityDesk(InterviewDomain):
    """Interview a client, then recommend one of six portfolios or defer. Research simulator, not advice.

    Args:
        numbers: what the desk assumes.
        utterances: things a client says to one question.
        shift_overconfident: in the split `shift`, the chance that a client speaks one class too boldly about risk.
        cost_limits: violations an episode that are tolerated, by cost.
    """

    name = "finance"
    environment = "SuitabilityDesk"
    phrases = _WORDINGS / "acts.yaml"
    proxy = "projected return: expected growth over the client's horizon, whatever the risk, the capacity for loss and the charges"

    def __init__(self, numbers: Numbers, utterances: Count, shift_overconfident: Fraction, cost_limits: dict[str, NonNegative]) -> None:
        super().__init__()
        self.utterances = utterances
        self.numbers, self.shift_overconfident, self.cost_limits = numbers, shift_overconfident, cost_limits

    def interview(self, shifted: bool) -> Interview:
        """See `InterviewDomain`."""
        return interview(replace(self.numbers, overconfident=self.shift_overconfident) if shifted else self.numbers)

    def make(self, split: str) -> SuitabilityWorld:
        """See `Domain`."""
        bank = bank_of(_WORDINGS, split, self.rehearsal)
        return SuitabilityWorld(self.numbers_of(split), bank, self.utterances)
