"""The exact optimum of an interview: whom am I dealing with, what is it worth to ask, when do I decide?

A hidden hypothesis `h` is drawn from a prior. *Tests* reveal a noisy outcome about it at a price, each at most once and in any
order; a *decision* ends the episode with utility `U[h, decision]`. Given the hypothesis outcomes are independent, so the
outcomes seen so far are all there is to know: the *information state*. Its table is finite, and backward induction over the
number of tests made gives the optimal value of every act in it.

    Q(s, decision d) = E[U[h, d] | s]        Q(s, test t) = -price_t + sum_o P(o | s, t) max_a Q(s + (t, o), a)

An episode may start with a *profile* (facts that cost nothing); there is one table for each. Values are worked on weighted by
the probability of the state, which keeps every expectation a plain sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np

from framework.types import Bools, Floats, Ints

_MAX_STATES = 10_000_000
_Block = tuple[slice, ...]  # some states of the grid, as a view


@dataclass(frozen=True)
class Test:
    """A question, measurement or document.

    `likelihoods` holds one table `[H, outcomes]` of P(outcome | h). A second table, where given, is the one in force once the
    test `sharpened_by` has been made; its outcomes are numbered after the first's.
    """

    name: str
    price: float
    likelihoods: tuple[Floats, ...]
    sharpened_by: str | None = None

    def __post_init__(self) -> None:
        if (len(self.likelihoods) == 2) != (self.sharpened_by is not None):
            raise ValueError(f"{self.name}: a second table goes with sharpened_by, and only with it")
        if not all(np.allclose(table.sum(axis=1), 1) for table in self.likelihoods):
            raise ValueError(f"{self.name}: each row of likelihoods must sum to one")

    @property
    def n_outcomes(self) -> int:
        """Outcomes of all versions together."""
        return sum(table.shape[1] for table in self.likelihoods)


@dataclass(frozen=True)
class Solution:
    """A policy on every information state and what it earns.

    `action_values` is Q of the optimal continuation, normalised; -inf where the act is not allowed.
    """

    action_values: Floats  # [S, A]
    greedy: Ints  # [S]


class InformationStateDP:
    """Solves and evaluates policies on the information states of an interview.

    Acts are numbered tests first, decisions after. A state is written as `(profile, outcome of test 0, ...)` with -1 for a test
    not made yet.

    Args:
        prior: P(profile, hypothesis), `[G, H]`, summing to one.
        tests: T tests.
        utilities: value of each decision for each hypothesis, `[H, D]`.
    """

    def __init__(self, prior: Floats, tests: Sequence[Test], utilities: Floats) -> None:
        self.prior, self.tests, self.utilities = np.asarray(prior, float), tuple(tests), np.asarray(utilities, float)
        self.n_profiles, n_hypotheses = self.prior.shape
        self.n_tests, self.n_decisions = len(self.tests), self.utilities.shape[1]
        self._per_profile = math.prod(test.n_outcomes + 1 for test in self.tests)
        if self.n_profiles * self._per_profile > _MAX_STATES:
            raise ValueError(f"{self.n_profiles * self._per_profile:,} information states; the table holds at most {_MAX_STATES:,}")
        self._radix = np.array([test.n_outcomes + 1 for test in self.tests], dtype=np.int64)
        self._strides = np.concatenate([np.cumprod(self._radix[::-1])[::-1][1:], [1]]).astype(np.int64)
        if not np.isclose(self.prior.sum(), 1):
            raise ValueError(f"the prior sums to {self.prior.sum():.6f}, not to one")
        # Outcomes of every state, [S, T], -1 for a test not made; profiles are the slow index.
        codes = (np.arange(self._per_profile)[:, None] // self._strides) % self._radix
        self.outcomes: Ints = np.tile(np.where(codes == self._radix - 1, -1, codes), (self.n_profiles, 1))
        half = self.n_tests // 2
        self._left, self._right = (self._likelihood(part) for part in (self.tests[:half], self.tests[half:]))
        self.probability: Floats = self._weighted(np.ones((n_hypotheses, 1)))[:, 0]  # [S] of the outcomes, if just these tests are made
        self._grid = (self.n_profiles, *self._radix.tolist())  # the states' shape: an axis for each test, its last place for a test not made
        self._blocks = self._all_blocks()
        self.mask: Bools = np.concatenate([self.outcomes < 0, np.ones((len(self.outcomes), self.n_decisions), bool)], axis=1)

    @property
    def roots(self) -> Ints:
        """Index of each profile's first state."""
        return np.arange(1, self.n_profiles + 1) * self._per_profile - 1

    def index(self, states: Ints) -> Ints:
        """Rows of the tables for states `[B, 1 + T]`."""
        outcomes = np.where(states[:, 1:] < 0, self._radix - 1, states[:, 1:])
        return np.asarray(states[:, 0] * self._per_profile + outcomes @ self._strides)

    def expected(self, table: Floats) -> Floats:
        """E[table[h, d] | state] for a table `[H, D]`: `[S, D]`."""
        weighted = self._weighted(table)
        return np.divide(weighted, self.probability[:, None], out=np.zeros_like(weighted), where=self.probability[:, None] > 0)

    def solve(self, decision_values: Floats | None = None, prices: Floats | None = None) -> Solution:
        """Optimal action values of every state.

        Args:
            decision_values: what decisions are worth, `[S, D]`; the expected utilities if None.
            prices: of the tests, `[T]`; their own if None.
        """
        prices = np.array([test.price for test in self.tests]) if prices is None else prices
        values = self.expected(self.utilities) if decision_values is None else decision_values
        weighted = np.full(self.mask.shape[::-1], -np.inf)
        weighted[self.n_tests :] = (values * self.probability[:, None]).T
        best = weighted[self.n_tests :].max(axis=0)
        acts, states, chance = weighted.reshape(-1, *self._grid), best.reshape(self._grid), self.probability.reshape(self._grid)
        for here, tests in reversed(self._blocks):  # the most informed first: a state's value needs only those of better informed ones
            for test, there in tests:
                worth = states[there].sum(axis=1 + test, keepdims=True) - prices[test] * chance[here]
                acts[test][here] = worth
                np.maximum(states[here], worth, out=states[here])
        weighted /= np.maximum(self.probability, np.finfo(float).tiny)
        return Solution(weighted.T, weighted.argmax(axis=0))

    def occupancy(self, policy: Floats) -> Floats:
        """How often an episode takes each act in each state under a policy (`[S, A]` both): all its expectations are sums of this."""
        ways = np.zeros(len(policy))  # chance of having chosen just these tests, whatever their outcomes
        ways[self.roots] = 1.0
        states = ways.reshape(self._grid)
        chosen = np.ascontiguousarray(policy[:, : self.n_tests].T).reshape(-1, *self._grid)
        for here, tests in self._blocks:
            for test, there in tests:
                states[there] += states[here] * chosen[test][here]
        return np.asarray((ways * self.probability)[:, None] * policy)

    def value(self, occupancy: Floats, decision_values: Floats, prices: bool = True) -> float:
        """Exact expectation of what decisions are worth (`[S, D]`), less the price of the tests made."""
        earned = float(np.einsum("sd,sd", occupancy[:, self.n_tests :], decision_values))
        paid = float(occupancy[:, : self.n_tests].sum(axis=0) @ [test.price for test in self.tests])
        return earned - paid if prices else earned

    def uniform(self) -> Floats:
        """The policy that picks any allowed act with equal chance."""
        return np.asarray(self.mask / self.mask.sum(axis=1, keepdims=True))

    def greedy(self, acts: Ints) -> Floats:
        """The policy that takes `acts[s]` in state s."""
        policy = np.zeros(self.mask.shape)
        policy[np.arange(len(acts)), acts] = 1.0
        return policy

    def _likelihood(self, tests: Sequence[Test]) -> Floats:
        """P(outcomes of these tests | h) for every combination of outcomes, a test not made counting as one: `[states, H]`."""
        joint = np.ones((1, self.prior.shape[1]))
        for test in tests:
            columns = np.concatenate([*test.likelihoods, np.ones((len(joint.T), 1))], axis=1)
            joint = (joint[:, None, :] * columns.T[None]).reshape(-1, joint.shape[1])
        return joint

    def _weighted(self, table: Floats) -> Floats:
        """sum_h P(state, h) table[h, d] for every state, `[S, D]`; a matrix product of two halves of the tests."""
        columns = [((self._left * weights) @ self._right.T).reshape(-1) for weights in (self.prior[:, None, :] * table.T).reshape(-1, len(table))]
        return np.concatenate(columns).reshape(self.n_profiles, table.shape[1], -1).swapaxes(1, 2).reshape(-1, table.shape[1])

    def _all_blocks(self) -> list[tuple[_Block, list[tuple[int, _Block]]]]:
        """For each set of tests that may have been made, the fewest first: its states, and where each of the other tests leads."""
        position = {test.name: number for number, test in enumerate(self.tests)}

        def leads(made: Sequence[int], here: _Block, test: int) -> _Block:
            spec, plain = self.tests[test], self.tests[test].likelihoods[0].shape[1]
            sharp = spec.sharpened_by is not None and position[spec.sharpened_by] in made
            return (*here[: 1 + test], slice(plain, -1) if sharp else slice(plain), *here[2 + test :])

        blocks = []
        for made in chain.from_iterable(combinations(range(self.n_tests), size) for size in range(self.n_tests + 1)):
            here = (slice(None), *(slice(-1) if test in made else slice(-1, None) for test in range(self.n_tests)))
            blocks.append((here, [(test, leads(made, here, test)) for test in range(self.n_tests) if test not in made]))
        return blocks
