"""The exact optimum of any world whose information states can be written down one by one.

A `DecisionModel` says, for each information state and act, what may follow and how likely. `FiniteOracle` walks through all states
that can be reached, and solves the decision process they form:

    Q(s, a) = E[reward | s, a] + sum_s' P(s' | s, a) max_a' Q(s', a')

by value iteration, which for a process that only moves forward is backward induction. Rewards are not discounted, so every policy
must come to an end; a world with a deadline keeps its clock in the state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.sparse import csr_matrix

from framework.interfaces import Oracle
from framework.oracles.constrained import constrained_occupancy
from framework.types import Bools, Floats, Ints, Reference

State = tuple[int, ...]

_TOLERANCE = 1e-11
_MAX_SWEEPS = 10_000
_MAX_STATES = 400_000
_MAX_SCRIPT = 64  # acts of an open-loop plan


@dataclass(frozen=True, slots=True)
class Outcome:
    """One thing that may follow an act; `state` is None where the episode ends."""

    probability: float
    state: State | None
    reward: float
    costs: Mapping[str, float] = field(default_factory=dict)
    proxy: float = 0.0  # what the world's exploitable proxy pays


class DecisionModel(ABC):
    """A world's numbers over what an ideal reader can know."""

    acts: tuple[str, ...]

    @abstractmethod
    def openings(self) -> Iterable[tuple[float, State]]:
        """States an episode may begin in, and their probabilities."""

    @abstractmethod
    def allowed(self, state: State) -> Bools:
        """Acts that the mask allows, `[A]`; at least one."""

    @abstractmethod
    def outcomes(self, state: State, act: int) -> Iterable[Outcome]:
        """All that may follow an allowed act; probabilities sum to one."""

    @abstractmethod
    def heuristic(self, state: State) -> int:
        """What an expert's rule of thumb does."""

    @abstractmethod
    def informed(self) -> float:
        """Expected return of one who sees from the start what is hidden."""


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
        self.model, self._limits = model, limits
        self._enumerate()
        self._optimal = self._solve(self._reward)

    def action_values(self, states: Ints) -> Floats:
        """See `Oracle`."""
        return np.asarray(self._optimal[self._rows(states)])

    def probabilities(self, reference: str, states: Ints) -> Floats:
        """See `Oracle`."""
        return np.asarray(self._policies[reference][self._rows(states)])

    @cached_property
    def references(self) -> Mapping[str, Reference]:
        """See the class."""
        worth = {name: self._worth(self._occupancy(policy)) for name, policy in self._policies.items()}
        return {**worth, "open_loop": Reference(self._open_loop()), "informed": Reference(self.model.informed())}

    @property
    def n_states(self) -> int:
        """Information states that can be reached."""
        return len(self._mask)

    @cached_property
    def _policies(self) -> Mapping[str, Floats]:
        uniform = self._mask / self._mask.sum(axis=1, keepdims=True)
        constants = [self._always(act) for act in range(len(self.model.acts))]
        heuristic = np.array([self.model.heuristic(state) for state in self._index])
        optimum = _one_hot(self._optimal.argmax(axis=1), self._mask.shape)
        occupancy = constrained_occupancy(lambda weights: self._occupancy(self._greedy(weights)), self._worth, self._limits)
        visits = occupancy.sum(axis=1, keepdims=True)
        return {
            "random": uniform,
            "best_constant": max(constants, key=lambda policy: self._worth(self._occupancy(policy)).value),
            "heuristic": _one_hot(heuristic, self._mask.shape),
            "optimum": optimum,
            "constrained_optimum": np.where(visits > 0, occupancy / np.where(visits > 0, visits, 1), optimum),
            "proxy_optimum": _one_hot(self._solve(self._proxy).argmax(axis=1), self._mask.shape),
        }

    def _enumerate(self) -> None:
        """Every reachable state, with expected rewards and costs and a sparse matrix of where acts lead."""
        n_acts, openings = len(self.model.acts), list(self.model.openings())
        self._index: dict[State, int] = {}
        for _, state in openings:
            self._index.setdefault(state, len(self._index))
        self._start = np.zeros(len(self._index))
        for probability, state in openings:
            self._start[self._index[state]] += probability
        queue, masks, rewards, proxies = list(self._index), [], [], []
        costs: dict[str, list[tuple[int, int, float]]] = {name: [] for name in self._limits}
        pair, target, chance = [], [], []
        for row, state in enumerate(queue):  # grows as it is walked
            mask = np.asarray(self.model.allowed(state), bool)
            reward, proxy = np.full(n_acts, -np.inf), np.full(n_acts, -np.inf)
            for act in np.flatnonzero(mask).tolist():
                reward[act] = proxy[act] = total = 0.0
                for outcome in self.model.outcomes(state, act):
                    total += outcome.probability
                    reward[act] += outcome.probability * outcome.reward
                    proxy[act] += outcome.probability * outcome.proxy
                    for name, cost in outcome.costs.items():
                        costs.setdefault(name, []).append((row, act, outcome.probability * cost))
                    if outcome.state is not None:
                        if outcome.state not in self._index:
                            self._index[outcome.state] = len(queue)
                            queue.append(outcome.state)
                        pair.append(row * n_acts + act)
                        target.append(self._index[outcome.state])
                        chance.append(outcome.probability)
                if abs(total - 1) > 1e-9:
                    raise ValueError(f"{self.model.acts[act]} in {state}: probabilities of outcomes sum to {total:.6f}, not to one")
            masks.append(mask)
            rewards.append(reward)
            proxies.append(proxy)
            if len(queue) > _MAX_STATES:
                raise ValueError(f"more than {_MAX_STATES:,} information states can be reached")
        self._mask, self._reward, self._proxy = np.stack(masks), np.stack(rewards), np.stack(proxies)
        self._leads = csr_matrix((chance, (pair, target)), shape=(self._mask.size, len(queue)))
        self._costs = {name: np.zeros(self._mask.shape) for name in costs}
        for name, entries in costs.items():
            for row, act, cost in entries:
                self._costs[name][row, act] += cost
        self._start = np.concatenate([self._start, np.zeros(len(queue) - len(self._start))])
        if not np.isclose(self._start.sum(), 1):
            raise ValueError(f"probabilities of openings sum to {self._start.sum():.6f}, not to one")

    def _rows(self, states: Ints) -> Ints:
        return np.array([self._index[tuple(state)] for state in states.tolist()])

    def _solve(self, reward: Floats) -> Floats:
        """Optimal action values `[S, A]` for any reward; -inf where not allowed."""
        values = np.zeros(len(reward))
        for _ in range(_MAX_SWEEPS):
            action_values = reward + (self._leads @ values).reshape(reward.shape)
            values, before = action_values.max(axis=1), values
            if np.abs(values - before).max() <= _TOLERANCE * max(1.0, np.abs(values).max()):
                return np.asarray(action_values)
        raise ValueError(f"values have not settled after {_MAX_SWEEPS:,} sweeps; does every policy come to an end?")

    def _greedy(self, weights: Mapping[str, float]) -> Floats:
        """The best policy where costs are charged at these weights."""
        charged = self._reward - sum((weight * self._costs[name] for name, weight in weights.items()), np.zeros(self._reward.shape))
        return _one_hot(self._solve(charged).argmax(axis=1), self._mask.shape)

    def _occupancy(self, policy: Floats) -> Floats:
        """Expected number of times an episode takes each act in each state, `[S, A]`."""
        total, present = np.zeros(policy.shape), self._start
        for _ in range(_MAX_SWEEPS):
            acted = present[:, None] * policy
            total += acted
            present = self._leads.T @ acted.reshape(-1)
            if present.sum() < 1e-12:
                return total
        raise ValueError(f"a policy has not come to an end after {_MAX_SWEEPS:,} acts")

    def _worth(self, occupancy: Floats) -> Reference:
        reward = np.where(self._mask, self._reward, 0.0)
        return Reference(float((occupancy * reward).sum()), {name: float((occupancy * cost).sum()) for name, cost in self._costs.items()})

    def _always(self, act: int) -> Floats:
        """One act wherever it is allowed, any other elsewhere."""
        allowed = self._mask[:, act]
        uniform = self._mask / self._mask.sum(axis=1, keepdims=True)
        return np.where(allowed[:, None], np.eye(self._mask.shape[1])[act], uniform)

    def _open_loop(self) -> float:
        """Coordinate ascent on a fixed sequence of acts, from the best constant one: never less, and at most the best sequence."""
        reward = np.where(self._mask, self._reward, 0.0)
        policies = [self._always(act) for act in range(self._mask.shape[1])]
        earns = [(policy * reward).sum(axis=1) for policy in policies]
        n_states = len(reward)
        rows = np.repeat(np.arange(n_states), self._mask.shape[1])
        moves = [csr_matrix((policy.reshape(-1), (rows, np.arange(policy.size))), shape=(n_states, policy.size)) @ self._leads for policy in policies]
        best = max(range(len(policies)), key=lambda act: self._worth(self._occupancy(policies[act])).value)
        script, found = [best] * _MAX_SCRIPT, -np.inf
        while True:
            after = [np.zeros(n_states)]
            for act in reversed(script):
                after.append(earns[act] + moves[act] @ after[-1])
            after.reverse()
            value = float(self._start @ after[0])
            if value <= found + 1e-9 * max(1.0, abs(found)):
                return value
            found, present = value, self._start
            for turn in range(_MAX_SCRIPT):
                script[turn] = int(np.argmax([present @ (earns[act] + moves[act] @ after[turn + 1]) for act in range(len(policies))]))
                present = moves[script[turn]].T @ present
                if present.sum() < 1e-12:
                    break


def _one_hot(acts: Ints, shape: tuple[int, ...]) -> Floats:
    return np.asarray(np.arange(shape[1]) == acts[:, None], dtype=float)
