"""A policy of which nothing is understood loses its turns, and gains nothing by it where a world charges for what is left undone."""

from __future__ import annotations

import numpy as np
from speakers import OneTurn, PricedProbe, PricedTurn

from framework.evaluation import evaluate
from framework.interfaces import Policy
from framework.types import Ints, Observations


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
    assert {step.act for story in mute.stories for step in story.steps} == {""}
