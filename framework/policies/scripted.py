"""Policies that learn nothing: the references that every result is held against."""

from __future__ import annotations

import numpy as np

from framework.interfaces import Oracle, Policy
from framework.types import Ints, Observations


class ReferencePolicy(Policy):
    """Does what an oracle says a reference policy does; reads the information state, not the text.

    Args:
        oracle: of the split that is played.
        name: `random`, `best_constant`, `heuristic` or `optimum`.
        seed: of the acts of a policy that is not deterministic.
    """

    def __init__(self, oracle: Oracle, name: str, seed: int = 0) -> None:
        self.oracle, self.name, self._rng = oracle, name, np.random.default_rng(seed)

    def act(self, observations: Observations, deterministic: bool = False) -> Ints:
        """See `Policy`; draws even when asked for the best act, because the reference itself may be random."""
        chances = self.oracle.probabilities(self.name, observations.states)
        drawn = self._rng.random((len(chances), 1)) * chances.sum(axis=1, keepdims=True)
        return np.asarray((chances.cumsum(axis=1) > drawn).argmax(axis=1))
