"""The ward in words, and as a domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from domains.healthcare.icu_sepsis.data import STATES
from domains.healthcare.icu_sepsis.model import GRADES, READINGS, Numbers, SepsisModel, SepsisOracle
from framework.config import Count, Fraction, NonNegative
from framework.types import Bools, Grounds, Transition
from framework.worlds.environments import TextWorld
from framework.worlds.finite import FiniteDomain, FiniteOracle
from framework.worlds.free_text import grounds_of
from framework.worlds.wordings import Bank, bank_of, load_bank

_WORDINGS = Path(__file__).parent / "wordings"
_OUTCOMES = ("outcome: the patient dies within ninety days", "outcome: the patient is alive after ninety days")


class SepsisWorld(TextWorld):
    """`healthcare/IcuSepsis-v0`: one patient, a chart and two doses every four hours."""

    def __init__(self, model: SepsisModel, bank: Bank, scatter: float, max_steps: int) -> None:
        super().__init__(model.acts, max_steps)
        self.model, self.scatter = model, scatter
        self.patient = 0  # state; the last one before the end
        self.told = [0] * len(READINGS)  # grades
        self.wordings = [[bank[reading.topic][grade] for grade in GRADES] for reading in READINGS]
        self.facts = load_bank(_WORDINGS / "facts.yaml")

    def begin(self, rng: np.random.Generator, options: Mapping[str, Any]) -> list[str]:
        """See `TextWorld`."""
        self.patient = int(rng.choice(STATES, p=self.model.starts))
        return self._chart(rng)

    def action_mask(self) -> Bools:
        """See `World`."""
        return self.model.allowed((self.patient,)).copy()

    def information_state(self) -> tuple[int, ...]:
        """See `World`."""
        return (self.patient,)

    def act(self, action: int) -> Transition:
        """See `TextWorld`."""
        targets, chances = self.model.follows(self.patient, action)
        led_to = int(self.np_random.choice(targets, p=chances))
        outcome = self.model.outcome(self.patient, action, led_to)
        ended = outcome.state is None
        if ended:
            self.lines = [_OUTCOMES[int(outcome.reward)]]
        else:
            self.patient = led_to
            self.lines = self._chart(self.np_random)
        return Transition({"survival": outcome.reward}, outcome.costs, ended, outcome.proxy)

    def grounds(self) -> Grounds:
        """See `World`: readings at either end of their scale; not the doses so far, which are no reasons."""
        heard = {reading.label: GRADES[grade] for reading, grade in zip(READINGS, self.told, strict=True)}
        return grounds_of(self.facts, {label: grade for label, grade in heard.items() if grade in self.facts.get(label, {})})

    def get_world(self) -> dict[str, Any]:
        """See `TextWorld`."""
        return {"patient": self.patient, "told": list(self.told)}

    def set_world(self, state: Mapping[str, Any]) -> None:
        """See `TextWorld`."""
        self.patient, self.told = int(state["patient"]), list(state["told"])

    def _chart(self, rng: np.random.Generator) -> list[str]:
        """A line for each reading. Patients of one state are not all alike: now and then one is a grade off."""
        shifts, words = rng.random((2, len(READINGS))).tolist()
        lines = []
        for place, (reading, grade) in enumerate(zip(READINGS, self.model.grades[self.patient].tolist(), strict=True)):
            off = int(shifts[place] > 1 - self.scatter / 2) - int(shifts[place] < self.scatter / 2)
            self.told[place] = min(max(grade + off, 0), len(GRADES) - 1)
            wordings = self.wordings[place][self.told[place]]
            lines.append(f"{reading.label}: {wordings[int(words[place] * len(wordings))]}")
        return lines


class IcuSepsis(FiniteDomain):
    """Sepsis in intensive care: fluids and pressor every four hours. A benchmark process, not medicine.

    Args:
        numbers: what the ward assumes.
        scatter: chance that a reading is told one grade off its state's.
        max_steps: acts after which an episode is cut off; nearly all have ended long before.
        shift_sicker: in the split `shift`, openings are weighted by exp(this * SOFA).
        cost_limits: violations an episode that are tolerated, by cost.
    """

    name = "healthcare"
    environment = "IcuSepsis"
    phrases = _WORDINGS / "acts.yaml"
    proxy = "fall of the SOFA score, which measures how far organs have failed, in each four hours"

    def __init__(self, numbers: Numbers, scatter: Fraction, max_steps: Count, shift_sicker: NonNegative, cost_limits: dict[str, NonNegative]) -> None:
        super().__init__()
        self.numbers, self.scatter, self.max_steps = numbers, scatter, max_steps
        self.shift_sicker, self.cost_limits = shift_sicker, cost_limits

    def model(self, shifted: bool) -> SepsisModel:
        """See `FiniteDomain`."""
        return SepsisModel(replace(self.numbers, sicker=self.shift_sicker) if shifted else self.numbers)

    def model_of(self, split: str) -> SepsisModel:
        """See `FiniteDomain`."""
        model = super().model_of(split)
        assert isinstance(model, SepsisModel)
        return model

    def oracle(self, split: str) -> FiniteOracle:
        """See `Domain`; solved once."""
        shifted = split == "shift"
        if shifted not in self._oracles:
            self._oracles[shifted] = SepsisOracle(self.model_of(split), self.cost_limits)
        return self._oracles[shifted]

    def make(self, split: str) -> SepsisWorld:
        """See `Domain`."""
        bank = bank_of(_WORDINGS, split, self.rehearsal)
        return SepsisWorld(self.model_of(split), bank, self.scatter, self.max_steps)
