"""The numbers of the ward: the published process, what is safe, and what a chart shows of a state."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from domains.healthcare.icu_sepsis.data import COLUMNS, LEVELS, STATES, SURVIVED, records
from framework.config import Fraction, NonNegative
from framework.oracles.finite import DecisionModel, FiniteProcess, Outcome, State
from framework.types import Bools, Floats, Ints
from framework.worlds.finite import FiniteOracle

FLUIDS = ("no", "small", "moderate", "large", "maximal")
PRESSORS = ("no", "light", "medium", "strong", "extreme")
ACTS = tuple(f"{fluid}_fluid_{pressor}_pressor" for fluid, pressor in itertools.product(FLUIDS, PRESSORS))
GRADES = ("low", "middle", "high")


@dataclass(frozen=True, slots=True)
class Reading:
    """A line of the chart: a column of the records, told in grades."""

    label: str
    column: str
    topic: str = "level"  # of the wordings; readings of one kind share theirs
    bounds: tuple[float, float] = (1 / 3, 2 / 3)  # shares of all states that are low, and low or middle


READINGS = (
    Reading("wakefulness", "GCS", "wakefulness"),
    Reading("organs", "SOFA", "organs"),
    Reading("ventilator", "mechvent", "ventilator"),
    Reading("pressor so far", "max_dose_vaso", "pressor", (0.5, 0.8)),  # half of the states hardly know it
    Reading("fluids so far", "input_4hourly", "amount"),
    Reading("urine", "output_4hourly", "amount"),
    Reading("pulse", "HR", "speed"),
    Reading("breathing", "RR", "speed"),
    Reading("blood pressure", "MeanBP"),
    Reading("temperature", "Temp_C"),
    Reading("lactate", "Arterial_lactate"),
    Reading("urea", "BUN"),
    Reading("carbon dioxide", "paCO2"),
    Reading("blood oxygen", "paO2"),
    Reading("oxygen given", "FiO2_1"),
    Reading("arterial pH", "Arterial_pH"),
    Reading("bilirubin", "Total_bili"),
    Reading("white cells", "WBC_count"),
    Reading("platelets", "Platelets_count"),
    Reading("haemoglobin", "Hb"),
    Reading("sodium", "Sodium"),
    Reading("glucose", "Glucose"),
    Reading("clotting time", "PTT"),
    Reading("body weight", "Weight_kg"),
)


@dataclass(frozen=True)
class Numbers:
    """What the ward assumes; `conf/domain/healthcare.yaml` holds the values and says why."""

    rare: Fraction  # an act that clinicians take less often than this in a state is off protocol there
    sicker: NonNegative = 0.0  # openings are weighted by exp(sicker * SOFA)


class SepsisModel(DecisionModel):
    """The published process. Reward: 1 for a patient alive after ninety days. States are the published ones, fully known."""

    acts = ACTS

    def __init__(self, numbers: Numbers) -> None:
        self.records = records()
        weights = self.records.openings * np.exp(numbers.sicker * self.records.sofa)
        self.starts: Floats = weights / weights.sum()  # [713]
        self.rare: Bools = self.records.clinicians < numbers.rare  # [713, 25]

    @cached_property
    def grades(self) -> Ints:
        """The grade of each state in each reading, `[713, R]`: where it stands among all states, not a clinical threshold."""
        columns = [self.records.centres[:, COLUMNS.index(reading.column)] for reading in READINGS]
        graded = [np.searchsorted(np.quantile(column, reading.bounds), column, "right") for column, reading in zip(columns, READINGS, strict=True)]
        return np.stack(graded, axis=1)

    @cached_property
    def clinicians(self) -> Floats:
        """What clinicians did, `[713, 25]`; acts that are not allowed move as a random allowed one would, so they count as that."""
        allowed = self.records.allowed
        kept = np.where(allowed, self.records.clinicians, 0.0)
        return np.asarray(kept + allowed * ((1 - kept.sum(axis=1)) / allowed.sum(axis=1))[:, None])

    def follows(self, state: int, act: int) -> tuple[Ints, Floats]:
        """States, ends among them, that may follow an allowed act, and their probabilities."""
        leads, row = self.records.leads, state * len(ACTS) + act
        here = slice(leads.indptr[row], leads.indptr[row + 1])
        return leads.indices[here], leads.data[here]

    def outcome(self, state: int, act: int, next_state: int, probability: float = 1.0) -> Outcome:
        """What it means that an act leads there. The proxy is the fall of the SOFA score; an end, good or bad, changes none."""
        costs = {"off_protocol": float(self.rare[state, act]), "max_pressor": float(act % LEVELS == LEVELS - 1)}
        if next_state >= STATES:
            return Outcome(probability, None, float(next_state == SURVIVED), costs)
        return Outcome(probability, (next_state,), 0.0, costs, float(self.records.sofa[state] - self.records.sofa[next_state]))

    def openings(self) -> Iterator[tuple[float, State]]:
        """See `DecisionModel`."""
        return ((float(start), (state,)) for state, start in enumerate(self.starts))

    def allowed(self, state: State) -> Bools:
        """See `DecisionModel`."""
        return np.asarray(self.records.allowed[state[0]])

    def outcomes(self, state: State, act: int) -> Iterator[Outcome]:
        """See `DecisionModel`."""
        return (self.outcome(state[0], act, int(target), float(chance)) for target, chance in zip(*self.follows(state[0], act), strict=True))

    def heuristic(self, state: State) -> int:
        """What clinicians did most often."""
        return int(self.clinicians[state[0]].argmax())

    def informed(self) -> float:
        """Nothing is hidden: the optimum."""
        return FiniteProcess(self).optimum()


class SepsisOracle(FiniteOracle):
    """One more reference than a `FiniteOracle` has: `clinicians`, who do not always do the same in a state."""

    def __init__(self, model: SepsisModel, limits: Mapping[str, float]) -> None:
        super().__init__(model, limits)
        self._clinicians = model.clinicians

    @cached_property
    def policies(self) -> Mapping[str, Floats]:
        """See `FiniteOracle`."""
        return {**super().policies, "clinicians": self._clinicians[[state for (state,) in self.process.states]]}
