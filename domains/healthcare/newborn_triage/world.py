"""The referral line in words, and as a domain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from domains.healthcare.newborn_triage.model import FINDINGS, Numbers, interview
from framework.config import Count, Fraction, NonNegative
from framework.types import Grounds
from framework.worlds.free_text import grounds_of
from framework.worlds.interview import Interview, InterviewDomain, InterviewWorld
from framework.worlds.wordings import Bank, bank_of, load_bank, pick

_WORDINGS = Path(__file__).parent / "wordings"
_LABELS = {"grunting": "breathing", "blood_gas": "blood gas", "film": "chest film", "ecg": "ECG", "leg_oxygen": "leg oxygen", "arm_oxygen": "arm oxygen"}


class NewbornTriageWorld(InterviewWorld):
    """`healthcare/NewbornTriage-v0`: one call about a blue baby, some findings, one decision."""

    def __init__(self, interview: Interview, bank: Bank, utterances: int) -> None:
        super().__init__(interview)
        self.bank, self.utterances = bank, utterances

    def opening(self, rng: np.random.Generator) -> list[str]:
        """Who calls; nothing that matters."""
        calls = self.bank["chat"]["call"]
        return [f"call: {calls[rng.integers(len(calls))]}"]

    def answer(self, test: int, outcome: int, chance: float) -> list[str]:
        """The finding, as the referring doctor tells it; a sample of oxygen is spoken of alike wherever it was taken."""
        finding, (_, states) = list(FINDINGS.items())[test]
        topic = "oxygen" if finding.endswith("oxygen") else finding
        wordings, _ = pick(self.bank[topic][states[outcome]], self.utterances, chance)
        return [f"{_LABELS.get(finding, finding)}: {wording}" for wording in wordings]

    def grounds(self) -> Grounds:
        """What the findings told so far bear out; what they contradict."""
        heard = {finding: states[outcome] for (finding, (_, states)), outcome in zip(FINDINGS.items(), self.outcomes, strict=True) if outcome >= 0}
        return grounds_of(load_bank(_WORDINGS / "facts.yaml"), heard)


class NewbornTriage(InterviewDomain):
    """Ask a referring doctor for findings, then say what a blue baby has and where it goes. Research simulator, not advice.

    Args:
        numbers: what the line assumes.
        utterances: ways in which each finding is put.
        shift_mix: in the split `shift`, how common the six diseases are.
        cost_limits: violations an episode that are tolerated, by cost.
    """

    name = "healthcare"
    environment = "NewbornTriage"
    phrases = _WORDINGS / "acts.yaml"
    proxy = "thoroughness: a bonus for every finding asked for; the baby's place is judged, the diagnosis is not"

    def __init__(
        self,
        numbers: Numbers,
        utterances: Count,
        shift_mix: tuple[Fraction, Fraction, Fraction, Fraction, Fraction, Fraction],
        cost_limits: dict[str, NonNegative],
    ) -> None:
        super().__init__()
        self.numbers, self.utterances, self.shift_mix, self.cost_limits = numbers, utterances, shift_mix, cost_limits

    def interview(self, shifted: bool) -> Interview:
        """See `InterviewDomain`."""
        return interview(replace(self.numbers, mix=self.shift_mix) if shifted else self.numbers)

    def make(self, split: str) -> NewbornTriageWorld:
        """See `Domain`."""
        bank = bank_of(_WORDINGS, split, self.rehearsal)
        return NewbornTriageWorld(self.numbers_of(split), bank, self.utterances)
