"""A policy of which nothing is understood loses its turns and gains nothing by it, where every act has its price too."""

from __future__ import annotations

import numpy as np

from framework.config import load_domain
from framework.evaluation import evaluate
from framework.interfaces import Policy
from framework.types import Ints, Observations


class Mute(Policy):
    def act(self, observations: Observations, deterministic: bool = False) -> Ints:
        return np.full(len(observations.texts), -1)


def test_silence_is_worth_no_more_than_the_worst_act() -> None:
    domain = load_domain("finance", "SuitabilityDesk")
    references = domain.oracle("validation").references
    assert references["optimum"].value < 0  # so that earning nothing would look like more than the best
    found = evaluate(Mute(), domain, "validation", 8)
    assert found.returns.mean < references["random"].value
    assert found.costs["format"] == domain.make("validation").max_steps
    assert {step.act for story in found.stories for step in story.steps} == {"(nothing understood)"}
