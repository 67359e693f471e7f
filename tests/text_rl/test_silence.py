"""A policy of which nothing is understood loses its turns, and gains nothing by it where a world charges for what is left undone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from speakers import OneTurn, Probe

from framework.evaluation import evaluate
from framework.interfaces import Oracle, Policy
from framework.types import Floats, Ints, Observations, Reference


class Priced(Oracle):
    """Every act costs something, the best of them 3, chance 5 on average."""

    @property
    def references(self) -> Mapping[str, Reference]:
        return {"random": Reference(-5.0), "optimum": Reference(-3.0)}

    def action_values(self, states: Ints) -> Floats:
        return np.tile([-4.0, -3.0, -8.0], (len(states), 1))

    def probabilities(self, reference: str, states: Ints) -> Floats:
        raise NotImplementedError


class PricedTurn(OneTurn):
    def abandoned(self) -> float:
        return -8.0


class PricedProbe(Probe):
    def oracle(self, split: str) -> Oracle:
        return Priced()


class Always(Policy):
    def __init__(self, action: int) -> None:
        self.action = action

    def act(self, observations: Observations, deterministic: bool = False) -> Ints:
        return np.full(len(observations.texts), self.action)


def test_silence_is_charged_as_the_world_says() -> None:
    domain = PricedProbe(PricedTurn)
    assert evaluate(Always(1), domain, "validation", 4).returns.mean == -3
    mute = evaluate(Always(-1), domain, "validation", 4)
    assert mute.returns.mean == -8 and mute.costs["format"] == OneTurn().max_steps
    assert {step.act for story in mute.stories for step in story.steps} == {"(nothing understood)"}
