"""Domains whose truth is a `DecisionModel`: one for every split but `shift`, which has its own."""

from __future__ import annotations

from abc import abstractmethod

from framework.interfaces import Domain
from framework.oracles.finite import DecisionModel, FiniteOracle


class FiniteDomain(Domain):
    """A domain that gives its numbers as a `DecisionModel`; the oracle and every reference follow from them."""

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
