"""Worlds whose truth is a `DecisionModel`: their oracle, and their domains."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from framework.interfaces import Domain, Oracle
from framework.oracles.constrained import constrained_occupancy
from framework.oracles.finite import DecisionModel, FiniteProcess, one_hot
from framework.types import Floats, Ints, Reference


class FiniteOracle(Oracle):
    """Solves a `DecisionModel`.

    References: `random`, `best_constant` (one act wherever it is allowed, else any), `open_loop` (the best fixed sequence of acts
    that a search by coordinate ascent finds; value only), `heuristic`, `optimum`, `constrained_optimum` (the most that can be
    earned within the cost limits, by a policy that may draw lots), `proxy_optimum` (who maximises the proxy; its value is what
    that truly earns) and `informed` (value only).

    Args:
        model: the numbers.
        limits: of expected costs an episode, by name.
    """

    def __init__(self, model: DecisionModel, limits: Mapping[str, float]) -> None:
        self.process, self._limits = FiniteProcess(model), limits
        self._optimal = self.process.solve(self.process.reward)
        self._charged: tuple[Mapping[str, float], Floats] = ({}, self._optimal)  # prices, and the values they were last asked for

    def action_values(self, states: Ints) -> Floats:
        """See `Oracle`."""
        return np.asarray(self._optimal[self.process.rows(states)])

    @property
    def prices(self) -> Mapping[str, float]:
        """See `Oracle`."""
        return self._constrained[1]

    def charged_values(self, states: Ints, prices: Mapping[str, float]) -> Floats:
        """See `Oracle`; solved anew for other prices than the last."""
        if prices != self._charged[0]:
            self._charged = (dict(prices), self.process.solve(self.process.charged(prices)))
        return np.asarray(self._charged[1][self.process.rows(states)])

    def probabilities(self, reference: str, states: Ints) -> Floats:
        """See `Oracle`."""
        return np.asarray(self.policies[reference][self.process.rows(states)])

    @cached_property
    def references(self) -> Mapping[str, Reference]:
        """See the class."""
        worth = {name: self.process.worth(self.process.occupancy(policy)) for name, policy in self.policies.items()}
        return {**worth, "open_loop": Reference(self.process.open_loop()), "informed": Reference(self.process.model.informed())}

    @cached_property
    def policies(self) -> Mapping[str, Floats]:
        """The reference policies, `[S, A]`."""
        process, shape = self.process, self.process.mask.shape
        constants = [process.always(act) for act in range(shape[1])]
        optimum = one_hot(self._optimal.argmax(axis=1), shape)
        return {
            "random": process.mask / process.mask.sum(axis=1, keepdims=True),
            "best_constant": max(constants, key=lambda policy: process.worth(process.occupancy(policy)).value),
            "heuristic": one_hot(np.array([process.model.heuristic(state) for state in process.states]), shape),
            "optimum": optimum,
            "constrained_optimum": self._constrained[0],
            "proxy_optimum": one_hot(process.solve(process.proxy).argmax(axis=1), shape),
        }

    @cached_property
    def _constrained(self) -> tuple[Floats, Mapping[str, float]]:
        """The optimum within the limits, `[S, A]`, and its prices; where it never comes it does as the optimum does."""
        process = self.process
        occupancy, prices = constrained_occupancy(lambda weights: process.occupancy(process.greedy(weights)), process.worth, self._limits)
        visits = occupancy.sum(axis=1, keepdims=True)
        return np.where(visits > 0, occupancy / np.where(visits > 0, visits, 1), one_hot(self._optimal.argmax(axis=1), process.mask.shape)), prices


class FiniteDomain(Domain):
    """A domain that gives its numbers as a `DecisionModel`, one for every split but `shift`, which has its own."""

    def __init__(self) -> None:
        self._models: dict[bool, DecisionModel] = {}
        self._oracles: dict[bool, FiniteOracle] = {}

    @abstractmethod
    def model(self, shifted: bool) -> DecisionModel:
        """The world's numbers, as they are or in the split `shift`."""

    def model_of(self, split: str) -> DecisionModel:
        """The model of a split, built once."""
        shifted = split == "shift"
        if shifted not in self._models:
            self._models[shifted] = self.model(shifted)
        return self._models[shifted]

    @property
    def acts(self) -> tuple[str, ...]:  # type: ignore[override]
        """See `Domain`."""
        return self.model_of("train").acts

    def oracle(self, split: str) -> FiniteOracle:
        """See `Domain`; solved once."""
        shifted = split == "shift"
        if shifted not in self._oracles:
            limits = {name: limit for name, limit in self.cost_limits.items() if name != "format"}
            self._oracles[shifted] = FiniteOracle(self.model_of(split), limits)
        return self._oracles[shifted]
