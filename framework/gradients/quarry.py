"""A world to measure by: some ten situations, a policy that says itself when to stop, and words that tell all there is to know.

A quarry is dug layer by layer, and rock is soft or hard. `dig` pays 1 in soft rock and costs a half in hard; `blast`, only in hard
rock, costs 0.8 and mostly opens soft rock below; `leave` ends the day. What is shown depends on the information state alone, so a
language model's policy is a table over these states, and all about it can be worked out exactly (`framework.gradients.exact`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from framework.oracles.finite import DecisionModel, FiniteProcess, Outcome, State
from framework.types import Bools, Transition
from framework.worlds.environments import TextWorld
from framework.worlds.finite import FiniteDomain

ACTS = ("dig", "blast", "leave")
_DIG, _BLAST, _LEAVE = range(3)
_SOFT, _HARD = range(2)
_PAYS = (1.0, -0.5)  # digging, by rock
_BLAST_PAYS = -0.8
_SOFT_BELOW = (0.6, 0.3)  # chance of soft rock below, by rock that was dug
_SOFT_BELOW_BLAST = 0.9
_LEFT = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")


class QuarryModel(DecisionModel):
    """The numbers. A state is `(layer, rock)`; below the last layer there is nothing.

    Args:
        layers: turns of the longest episode.
    """

    acts = ACTS

    def __init__(self, layers: int) -> None:
        if not 1 <= layers < len(_LEFT):
            raise ValueError(f"layers must be from 1 to {len(_LEFT) - 1}, not {layers}")
        self.layers = layers

    def openings(self) -> Iterable[tuple[float, State]]:
        """See `DecisionModel`."""
        return [(0.5, (0, _SOFT)), (0.5, (0, _HARD))]

    def allowed(self, state: State) -> Bools:
        """See `DecisionModel`."""
        return np.array([True, state[1] == _HARD, True])

    def outcomes(self, state: State, act: int) -> Sequence[Outcome]:
        """See `DecisionModel`; in the order in which one number of chance, from 0 to 1, picks them."""
        layer, rock = state
        pays = _PAYS[rock] if act == _DIG else _BLAST_PAYS
        if act == _LEAVE:
            return [Outcome(1.0, None, 0.0)]
        if layer + 1 == self.layers:
            return [Outcome(1.0, None, pays)]
        soft = _SOFT_BELOW[rock] if act == _DIG else _SOFT_BELOW_BLAST
        return [Outcome(soft, (layer + 1, _SOFT), pays), Outcome(1 - soft, (layer + 1, _HARD), pays)]

    def heuristic(self, state: State) -> int:
        """Digs while the rock is soft."""
        return _DIG if state[1] == _SOFT else _LEAVE

    def informed(self) -> float:
        """The optimum: nothing is hidden."""
        return FiniteProcess(self).optimum()

    def told(self, state: State) -> str:
        """A state in words."""
        left, rock = self.layers - state[0], ("soft", "hard")[state[1]]
        return f"You are in a quarry. The rock is {rock}.\nThere {'is' if left == 1 else 'are'} {_LEFT[left]} layer{'' if left == 1 else 's'} left to dig."


class QuarryWorld(TextWorld):
    """A day in the quarry. All chance is drawn when it begins: equal seeds have the same rock and the same chances to come."""

    def __init__(self, model: QuarryModel) -> None:
        super().__init__(ACTS, model.layers)
        self.model = model
        self.state: tuple[int, ...] = (0, 0)
        self.chances: list[float] = []

    def begin(self, rng: np.random.Generator, options: Mapping[str, Any]) -> list[str]:
        """See `TextWorld`."""
        self.state, self.chances = (0, int(rng.integers(2))), rng.random(self.max_steps).tolist()
        return [self.model.told(self.state)]

    def act(self, action: int) -> Transition:
        """See `TextWorld`."""
        outcomes = self.model.outcomes(self.state, action)
        found = next((outcome for outcome in outcomes if self.chances[self.steps] < outcome.probability), outcomes[-1])  # of two at most
        if found.state is not None:
            self.state = found.state
            self.lines = [self.model.told(self.state)]
        return Transition({"pay": found.reward}, terminated=found.state is None)

    def action_mask(self) -> Bools:
        """See `World`."""
        return self.model.allowed(self.state)

    def information_state(self) -> tuple[int, ...]:
        """See `World`."""
        return self.state

    def get_world(self) -> dict[str, Any]:
        """See `TextWorld`."""
        return {"state": list(self.state), "chances": self.chances}

    def set_world(self, state: Mapping[str, Any]) -> None:
        """See `TextWorld`."""
        self.state, self.chances = tuple(state["state"]), list(state["chances"])


class Quarry(FiniteDomain):
    """The quarry as a domain; it has no splits that differ.

    Args:
        layers: turns of the longest episode.
    """

    name, environment = "probe", "Quarry"
    cost_limits: Mapping[str, float] = {}

    def __init__(self, layers: int = 5) -> None:
        super().__init__()
        self.layers = layers

    def model(self, shifted: bool) -> QuarryModel:
        """See `FiniteDomain`."""
        return QuarryModel(self.layers)

    def make(self, split: str) -> QuarryWorld:
        """See `Domain`."""
        return QuarryWorld(QuarryModel(self.layers))
