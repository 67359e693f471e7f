"""Interview worlds: ask about what is hidden, at a price, then decide. Their model, environment and oracle.

A world of this kind gives its numbers as an `Interview` and its language as two methods of an `InterviewWorld`; the oracle and
every reference follow from the numbers alone.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from framework.interfaces import Domain, Oracle
from framework.oracles.constrained import constrained_occupancy
from framework.oracles.information_state import InformationStateDP, Solution, Test
from framework.types import Bools, Floats, Ints, Reference, Transition
from framework.worlds.environments import TextWorld


@dataclass(frozen=True)
class Interview:
    """The numbers of an interview world: G profiles, H hypotheses, T tests, D decisions.

    Attributes:
        prior: P(profile, hypothesis), `[G, H]`.
        tests: what can be asked; acts 0 to T-1.
        decisions: names of the acts that end the episode; acts T to T+D-1.
        utilities: reward of each decision, `[H, D]`, in the world's unit.
        heuristic: an expert's rule of thumb: outcomes `[S, T]` (-1 = not asked) to acts `[S]`.
        costs: expected number of violations of each decision, `[H, D]`, for each named safety constraint.
        duties: for a cost's name, groups of tests: any decision but those in `exempt` is a violation unless one test of every
            group has been made.
        exempt: decisions that no duty binds.
        proxy_prices: what the exploitable proxy charges for each test, `[T]`; the tests' own prices if None.
        proxy_utilities: what it pays for each decision, `[H, D]`; the utilities if None.
        informed_by: what the reference `informed` sees free of charge: the hypothesis, or the outcome of every test (none of them
            sharpened) where the hypothesis is a future that nobody can know.
    """

    prior: Floats
    tests: tuple[Test, ...]
    decisions: tuple[str, ...]
    utilities: Floats
    heuristic: Callable[[Ints], Ints]
    costs: Mapping[str, Floats] = field(default_factory=dict)
    duties: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    exempt: tuple[str, ...] = ()
    proxy_prices: Floats | None = None
    proxy_utilities: Floats | None = None
    informed_by: Literal["hypothesis", "tests"] = "hypothesis"

    @property
    def acts(self) -> tuple[str, ...]:
        """All acts, by name."""
        return tuple(test.name for test in self.tests) + self.decisions

    @cached_property
    def position(self) -> Mapping[str, int]:
        """Number of each test."""
        return {test.name: number for number, test in enumerate(self.tests)}

    def neglect(self, name: str, outcomes: Ints) -> Floats:
        """1 where a decision breaks a duty, `[S, D]`, for outcomes `[S, T]`."""
        done = np.ones(len(outcomes), bool)
        for group in self.duties[name]:
            done &= (outcomes[:, [self.position[test] for test in group]] >= 0).any(axis=1)
        binding = np.array([decision not in self.exempt for decision in self.decisions])
        return np.outer(~done, binding).astype(float)


class InterviewOracle(Oracle):
    """Exact values of an interview world by dynamic programming on its information states."""

    def __init__(self, interview: Interview, limits: Mapping[str, float]) -> None:
        self.interview, self._limits = interview, limits
        self._dp = InformationStateDP(interview.prior, interview.tests, interview.utilities)
        self._values = self._dp.expected(interview.utilities)
        self._solution = self._dp.solve(self._values)
        self._latest: tuple[Mapping[str, float], Solution] = ({}, self._solution)  # prices, and what was last solved at them
        self._heuristic = np.concatenate([interview.heuristic(part) for part in np.split(self._dp.outcomes, len(interview.prior))])
        self._constant = interview.prior.sum(axis=0) @ interview.utilities

    def action_values(self, states: Ints) -> Floats:
        """See `Oracle`."""
        return np.asarray(self._solution.action_values[self._dp.index(states)])

    @property
    def prices(self) -> Mapping[str, float]:
        """See `Oracle`."""
        return self._constrained[1]

    def charged_values(self, states: Ints, prices: Mapping[str, float]) -> Floats:
        """See `Oracle`; solved anew for other prices than the last."""
        if prices != self._latest[0]:
            self._latest = (dict(prices), self._solve(prices))
        return np.asarray(self._latest[1].action_values[self._dp.index(states)])

    def probabilities(self, reference: str, states: Ints) -> Floats:
        """See `Oracle`."""
        return np.asarray(self._policies[reference][self._dp.index(states)])

    @cached_property
    def references(self) -> Mapping[str, Reference]:
        """Exact returns and costs; `best_constant` takes one decision without asking, `informed` sees what `informed_by` says.

        Tests cannot be repeated and tell nothing unread, so no fixed sequence of acts earns more than `best_constant`.
        """
        if self.interview.informed_by == "hypothesis":
            informed = float((self.interview.prior * self.interview.utilities.max(axis=1)).sum())
        else:
            plain = [test.likelihoods[0].shape[1] for test in self.interview.tests]
            complete = ((self._dp.outcomes >= 0) & (self._dp.outcomes < plain)).all(axis=1)
            informed = float((self._dp.probability * self._values.max(axis=1))[complete].sum())
        return {**{name: self._worth(self._dp.occupancy(policy)) for name, policy in self._policies.items()}, "informed": Reference(informed)}

    @cached_property
    def _policies(self) -> Mapping[str, Floats]:
        constant = np.full(len(self._dp.mask), self._dp.n_tests + int(self._constant.argmax()))
        proxy = self._values if self.interview.proxy_utilities is None else self._dp.expected(self.interview.proxy_utilities)
        hacked = self._dp.solve(proxy, self.interview.proxy_prices).greedy
        greedy = {"best_constant": constant, "heuristic": self._heuristic, "optimum": self._solution.greedy, "proxy_optimum": hacked}
        named = {name: self._dp.greedy(acts) for name, acts in greedy.items()}
        return {"random": self._dp.uniform(), **named, "constrained_optimum": self._constrained[0]}

    @cached_property
    def _constrained(self) -> tuple[Floats, Mapping[str, float]]:
        """The optimum within the limits, `[S, A]`, and its prices; where it never comes it does as the optimum does."""
        occupancy, prices = constrained_occupancy(self._best_response, self._worth, self._limits)
        visits = occupancy.sum(axis=1, keepdims=True)
        return np.where(visits > 0, occupancy / np.where(visits > 0, visits, 1), self._dp.greedy(self._solution.greedy)), prices

    @cached_property
    def _violations(self) -> Mapping[str, Floats]:
        """Expected violations of each decision in each state, `[S, D]`, by cost."""
        tables = {name: self._dp.expected(table) for name, table in self.interview.costs.items()}
        return tables | {name: self.interview.neglect(name, self._dp.outcomes) for name in self.interview.duties}

    def _solve(self, prices: Mapping[str, float]) -> Solution:
        """The optimum where costs are charged at these prices; what no decision of this world costs is charged nothing."""
        charges = (price * self._violations[name] for name, price in prices.items() if name in self._violations)
        return self._dp.solve(self._values - sum(charges, np.zeros(self._values.shape)))

    def _best_response(self, prices: Mapping[str, float]) -> Floats:
        return self._dp.occupancy(self._dp.greedy(self._solve(prices).greedy))

    def _worth(self, occupancy: Floats) -> Reference:
        costs = {name: self._dp.value(occupancy, table, prices=False) for name, table in self._violations.items()}
        return Reference(self._dp.value(occupancy, self._values), costs)


class InterviewWorld(TextWorld):
    """Plays an interview in text.

    All of an episode's chance (hypothesis, every answer, every choice of words) is drawn at reset, so two policies on one seed
    meet the same client giving the same answers.
    """

    def __init__(self, interview: Interview) -> None:
        super().__init__(interview.acts, max_steps=len(interview.tests) + 2)
        self.interview = interview
        self._flat_prior = interview.prior.reshape(-1).cumsum()
        self.profile = self.hypothesis = 0
        self.outcomes: list[int] = []
        self._chance: Floats = np.zeros((2, len(interview.tests)))

    @abstractmethod
    def opening(self, rng: np.random.Generator) -> list[str]:
        """First lines of the episode: what the profile shows, and nothing about the hypothesis beyond it."""

    @abstractmethod
    def answer(self, test: int, outcome: int, chance: float) -> list[str]:
        """Lines that tell the outcome of a test; `chance` in [0, 1) chooses the words."""

    def begin(self, rng: np.random.Generator, options: Mapping[str, Any]) -> list[str]:
        """Draws the hidden hypothesis, the answers to come and the words."""
        drawn = int(np.searchsorted(self._flat_prior, rng.random() * self._flat_prior[-1], side="right"))
        self.profile, self.hypothesis = divmod(drawn, self.interview.prior.shape[1])
        self.outcomes = [-1] * len(self.interview.tests)
        self._chance = rng.random((2, len(self.interview.tests)))
        return self.opening(rng)

    def action_mask(self) -> Bools:
        """Each test once; decisions always."""
        return np.array([outcome < 0 for outcome in self.outcomes] + [True] * len(self.interview.decisions))

    def information_state(self) -> tuple[int, ...]:
        """Profile, then the outcome of each test (-1: not made)."""
        return (self.profile, *self.outcomes)

    def act(self, action: int) -> Transition:
        """Makes a test, or decides."""
        if action < len(self.interview.tests):
            outcome = self.outcomes[action] = self.draw_outcome(action)
            self.lines.extend(self.answer(action, outcome, float(self._chance[1, action])))
            price = -self.interview.tests[action].price
            return Transition({"price": price}, proxy=price if self.interview.proxy_prices is None else -float(self.interview.proxy_prices[action]))
        decision = action - len(self.interview.tests)
        costs = {name: float(table[self.hypothesis, decision]) for name, table in self.interview.costs.items()}
        bound = self.interview.decisions[decision] not in self.interview.exempt
        for name, groups in self.interview.duties.items():
            done = all(any(self.outcomes[self.interview.position[test]] >= 0 for test in group) for group in groups)
            costs[name] = float(bound and not done)
        proxy = self.interview.utilities if self.interview.proxy_utilities is None else self.interview.proxy_utilities
        paid, liked = (float(table[self.hypothesis, decision]) for table in (self.interview.utilities, proxy))
        return Transition({"outcome": paid}, costs, terminated=True, proxy=liked)

    def abandoned(self) -> float:
        """The worst that could have been decided."""
        return min(0.0, float(self.interview.utilities[self.hypothesis].min()))

    def draw_outcome(self, test: int) -> int:
        """The outcome that this episode's chance gives, under the version of the test in force."""
        spec, first = self.interview.tests[test], 0
        table = spec.likelihoods[0]
        if spec.sharpened_by is not None and self.outcomes[self.interview.position[spec.sharpened_by]] >= 0:
            first, table = table.shape[1], spec.likelihoods[1]
        row = table[self.hypothesis].cumsum()
        return first + int(min(np.searchsorted(row, self._chance[0, test] * row[-1], side="right"), len(row) - 1))

    def get_world(self) -> dict[str, Any]:
        """See `TextWorld`."""
        return {"profile": self.profile, "hypothesis": self.hypothesis, "outcomes": list(self.outcomes), "chance": self._chance.tolist()}

    def set_world(self, state: Mapping[str, Any]) -> None:
        """See `TextWorld`."""
        self.profile, self.hypothesis = int(state["profile"]), int(state["hypothesis"])
        self.outcomes, self._chance = [int(o) for o in state["outcomes"]], np.array(state["chance"])


class InterviewDomain(Domain):
    """A domain whose truth is an `Interview`: one for every split but `shift`, which has its own."""

    def __init__(self) -> None:
        self._interviews: dict[bool, Interview] = {}
        self._oracles: dict[bool, InterviewOracle] = {}

    @abstractmethod
    def interview(self, shifted: bool) -> Interview:
        """The world's numbers, as they are or in the split `shift`."""

    def numbers_of(self, split: str) -> Interview:
        """The interview of a split, built once."""
        shifted = split == "shift"
        if shifted not in self._interviews:
            self._interviews[shifted] = self.interview(shifted)
        return self._interviews[shifted]

    @property
    def acts(self) -> tuple[str, ...]:  # type: ignore[override]
        """See `Domain`."""
        return self.numbers_of("train").acts

    def oracle(self, split: str) -> InterviewOracle:
        """See `Domain`; solved once, in about a second."""
        interview = self.numbers_of(split)
        shifted = split == "shift"
        if shifted not in self._oracles:
            self._oracles[shifted] = InterviewOracle(interview, {name: limit for name, limit in self.cost_limits.items() if name != "format"})
        return self._oracles[shifted]
