"""The credit desk in words, and as a domain.

The text speaks in bands and groups: it says all that the twin knows of an applicant and no more, on recorded cases too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from domains.finance.credit_desk.data import DOCUMENTS, FREE, HELD_OUT, Applicants, applicants
from domains.finance.credit_desk.model import PROFILES, Numbers, interview
from framework.config import Count, NonNegative, Positive
from framework.types import Grounds
from framework.worlds.free_text import grounds_of
from framework.worlds.interview import Interview, InterviewDomain, InterviewWorld
from framework.worlds.wordings import Bank, bank_of, load_bank, pick

_WORDINGS = Path(__file__).parent / "wordings"


class CreditWorld(InterviewWorld):
    """`finance/CreditDesk-v0`: one application, the documents asked for, one decision."""

    def __init__(self, interview: Interview, bank: Bank, utterances: int) -> None:
        super().__init__(interview)
        self.bank, self.utterances = bank, utterances

    def opening(self, rng: np.random.Generator) -> list[str]:
        """The application: a line for each of its four facts."""
        facts = np.unravel_index(self.profile, PROFILES)
        return [line for (topic, values), fact in zip(FREE.items(), facts, strict=True) for line in self._say(topic, values[int(fact)], rng.random())]

    def answer(self, test: int, outcome: int, chance: float) -> list[str]:
        """What the document says."""
        topic, values = list(DOCUMENTS.items())[test]
        return self._say(topic, values[outcome], chance)

    def grounds(self) -> Grounds:
        """What the application and the documents asked for show."""
        file = [*map(int, np.unravel_index(self.profile, PROFILES)), *self.outcomes]
        shown = {topic: values[value] for (topic, values), value in zip((FREE | DOCUMENTS).items(), file, strict=True) if value >= 0}
        return grounds_of(load_bank(_WORDINGS / "facts.yaml"), shown)

    def _say(self, topic: str, value: str, chance: float) -> list[str]:
        """The same thing in a few ways, as a form and a clerk's note would put it."""
        wordings, _ = pick(self.bank[topic][value], self.utterances, chance)
        return [f"{topic.replace('_', ' ')}: {wording}" for wording in wordings]


class RecordedCreditWorld(CreditWorld):
    """The same desk with recorded applicants: their own facts and documents, and what became of the credit.

    `reset(options={"case": i})` takes applicant i; without it the seed draws one.
    """

    def __init__(self, interview: Interview, bank: Bank, utterances: int, cases: Applicants) -> None:
        super().__init__(interview, bank, utterances)
        self.cases, self.case = cases, 0

    def begin(self, rng: np.random.Generator, options: Mapping[str, Any]) -> list[str]:
        """Puts a recorded applicant in the place of the one the twin would draw."""
        super().begin(rng, options)  # for the chance of the words
        self.case = int(options.get("case", rng.integers(len(self.cases.bad))))
        if not 0 <= self.case < len(self.cases.bad):
            raise ValueError(f"there are cases 0 to {len(self.cases.bad) - 1}, not {self.case}")
        self.profile = int(np.ravel_multi_index(tuple(self.cases.free[self.case]), PROFILES))
        self.hypothesis = int(self.cases.bad[self.case])
        return self.opening(rng)

    def draw_outcome(self, test: int) -> int:
        """What the applicant's file holds."""
        return int(self.cases.documents[self.case, test])

    def get_world(self) -> dict[str, Any]:
        """See `TextWorld`."""
        return {**super().get_world(), "case": self.case}

    def set_world(self, state: Mapping[str, Any]) -> None:
        """See `TextWorld`."""
        super().set_world(state)
        self.case = int(state["case"])


class CreditDesk(InterviewDomain):
    """Read an application, ask for documents at a price, then lend, lend less or decline. Research simulator, not advice.

    Args:
        numbers: what the desk assumes.
        utterances: ways in which each fact is put.
        shift_bad_odds: in the split `shift`, a downturn: the factor on the odds of a bad credit.
        cost_limits: violations an episode that are tolerated, by cost.
    """

    name = "finance"
    environment = "CreditDesk"
    phrases = _WORDINGS / "acts.yaml"
    proxy = "business written: good credits missed count in full, losses on bad ones only as far as they are on the books yet"
    real_splits = {"real": HELD_OUT, "real_unseen": HELD_OUT}

    def __init__(self, numbers: Numbers, utterances: Count, shift_bad_odds: Positive, cost_limits: dict[str, NonNegative]) -> None:
        super().__init__()
        self.utterances = utterances
        self.numbers, self.shift_bad_odds, self.cost_limits = numbers, shift_bad_odds, cost_limits

    def interview(self, shifted: bool) -> Interview:
        """See `InterviewDomain`."""
        return interview(replace(self.numbers, bad_odds=self.shift_bad_odds) if shifted else self.numbers)

    def make(self, split: str) -> CreditWorld:
        """See `Domain`; `real` plays the applicants held out of the twin in known wordings, `real_unseen` in those of the test split."""
        bank = bank_of(_WORDINGS, split, self.rehearsal)
        if split in self.real_splits:
            return RecordedCreditWorld(self.numbers_of(split), bank, self.utterances, applicants()[1])
        return CreditWorld(self.numbers_of(split), bank, self.utterances)
