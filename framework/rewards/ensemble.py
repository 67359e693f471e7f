"""`reward=ensemble`: several fitted rewards, and what to make of their disagreement.

A policy that is trained on a fitted reward finds where it errs; members that saw other pairs err elsewhere. Coste et al., 2024
(arXiv:2310.02743), compare the first three ways to be careful; members that agree on everything make all of them alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from framework.config import Count, NonNegative
from framework.lm.encoder import LineEncoder
from framework.preferences.fitted_reward import Fitting
from framework.preferences.turn_network import Shape
from framework.preferences.turn_reward import TurnReward
from framework.types import Floats, Step

Aggregation = Literal["mean", "worst", "uncertainty_weighted", "lower_confidence_bound"]


class Ensemble(TurnReward):
    """Members with weights and pairs of their own, drawn with replacement (Efron, 1979).

    Args:
        reader: see `TurnReward`, as are path, shape, fitting, imitation and cache.
        members: how many, M.
        aggregation: of a turn's scores s: `mean`; `worst`: the least; `uncertainty_weighted`: mean − λ · variance;
            `lower_confidence_bound`: mean − λ · standard deviation. Variances are over the members there are, not of a population.
        caution: λ.
        bootstrap: whether members have pairs of their own; else only their weights differ at the start.
    """

    def __init__(
        self,
        reader: LineEncoder,
        path: str | None,
        shape: Shape,
        fitting: Fitting,
        imitation: NonNegative,
        cache: Count,
        members: Annotated[int, Field(ge=2)],
        aggregation: Aggregation,
        caution: NonNegative,
        bootstrap: bool,
    ) -> None:
        super().__init__(reader, path, shape, fitting, imitation, cache)
        self.members, self.aggregation, self.caution, self.bootstrap = members, aggregation, caution, bootstrap

    def aggregate(self, scores: Floats) -> Floats:
        """See `FittedReward`."""
        return combined(scores, self.aggregation, self.caution)

    def doubts(self, turns: Sequence[Step]) -> Mapping[str, Floats]:
        """See `TurnReward`, and `disagreement`: the standard deviation of the members' scores."""
        scores = self.member_scores(self.turns(turns))
        return {**super().doubts(turns), "disagreement": np.asarray(scores.std(axis=1))}


def combined(scores: Floats, aggregation: Aggregation, caution: float) -> Floats:
    """One score a turn, `[T]`, of the members' `[T, M]`; see `Ensemble`."""
    if aggregation == "worst":
        return np.asarray(scores.min(axis=1))
    off = {"mean": np.zeros(len(scores)), "uncertainty_weighted": scores.var(axis=1), "lower_confidence_bound": scores.std(axis=1)}[aggregation]
    return np.asarray(scores.mean(axis=1) - caution * off)
