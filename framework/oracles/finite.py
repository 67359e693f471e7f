"""The exact optimum of any world whose information states can be written down one by one.

A `DecisionModel` says, for each information state and act, what may follow and how likely. `FiniteProcess` walks through all states
that can be reached, and solves the decision process they form:

    Q(s, a) = E[reward | s, a] + sum_s' P(s' | s, a) max_a' Q(s', a')

by value iteration, which for a process that only moves forward is backward induction. Rewards are not discounted, so every policy
must come to an end; a world with a deadline keeps its clock in the state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import rel_entr

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


class FiniteProcess:
    """All states of a `DecisionModel` that can be reached, S of them, and what policies `[S, A]` earn in them.

    Attributes:
        states: in the order of the tables' rows.
        mask: allowed acts, `[S, A]`.
        reward: expected reward of each act, `[S, A]`; -inf where not allowed.
        proxy: what the proxy pays, likewise.
        costs: expected cost of each act, `[S, A]`, by name.
    """

    def __init__(self, model: DecisionModel) -> None:
        self.model = model
        self._enumerate()

    @property
    def states(self) -> list[State]:
        """See the class."""
        return list(self._index)

    def rows(self, states: Ints) -> Ints:
        """Rows of the tables for states `[B, K]`."""
        return np.array([self._index[tuple(state)] for state in states.tolist()])

    def optimum(self) -> float:
        """What the best policy earns."""
        return float(self._start @ self.solve(self.reward).max(axis=1))

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
        costs: dict[str, list[tuple[int, int, float]]] = {}
        pair, target, chance = [], [], []
        for row, state in enumerate(queue):  # grows as it is walked
            mask = np.asarray(self.model.allowed(state), bool)
            reward, proxy = np.full(n_acts, -np.inf), np.full(n_acts, -np.inf)
            for act in np.flatnonzero(mask).tolist():
                total = earned = promised = 0.0
                for outcome in self.model.outcomes(state, act):
                    probability, after = outcome.probability, outcome.state
                    total += probability
                    earned += probability * outcome.reward
                    promised += probability * outcome.proxy
                    for name, cost in outcome.costs.items():
                        costs.setdefault(name, []).append((row, act, probability * cost))
                    if after is not None:
                        if (place := self._index.get(after)) is None:
                            place = self._index[after] = len(queue)
                            queue.append(after)
                        pair.append(row * n_acts + act)
                        target.append(place)
                        chance.append(probability)
                reward[act], proxy[act] = earned, promised
                if abs(total - 1) > 1e-9:
                    raise ValueError(f"{self.model.acts[act]} in {state}: probabilities of outcomes sum to {total:.6f}, not to one")
            masks.append(mask)
            rewards.append(reward)
            proxies.append(proxy)
            if len(queue) > _MAX_STATES:
                raise ValueError(f"more than {_MAX_STATES:,} information states can be reached")
        self.mask, self.reward, self.proxy = np.stack(masks), np.stack(rewards), np.stack(proxies)
        self._leads = csr_matrix((chance, (pair, target)), shape=(self.mask.size, len(queue)))
        self.costs = {name: np.zeros(self.mask.shape) for name in costs}
        for name, entries in costs.items():
            for row, act, cost in entries:
                self.costs[name][row, act] += cost
        self._start = np.concatenate([self._start, np.zeros(len(queue) - len(self._start))])
        if not np.isclose(self._start.sum(), 1):
            raise ValueError(f"probabilities of openings sum to {self._start.sum():.6f}, not to one")

    def solve(self, reward: Floats) -> Floats:
        """Optimal action values `[S, A]` for any reward; -inf where not allowed."""
        return self._settled(reward, lambda action_values: action_values.max(axis=1))

    def tilted(self, reward: Floats, reference: Floats, temperature: float) -> Floats:
        """The policy that earns most of any reward less `temperature` times its KL from a reference policy, both `[S, A]`.

        π(a|s) ∝ π_ref(a|s) exp(Q(s, a) / T), V(s) = T log Σ_a π_ref(a|s) exp(Q(s, a) / T) (Todorov, 2009; Levine, 2018, arXiv:1805.00909).
        """

        def soft(action_values: Floats) -> Floats:
            peak = action_values.max(axis=1)
            return np.asarray(peak + temperature * np.log((reference * np.exp((action_values - peak[:, None]) / temperature)).sum(axis=1)))

        action_values = self._settled(np.where(reference > 0, reward, -np.inf), soft)
        return np.asarray(reference * np.exp((action_values - soft(action_values)[:, None]) / temperature))

    def _settled(self, reward: Floats, value: Callable[[Floats], Floats]) -> Floats:
        """Action values `[S, A]` that bear themselves out, where a state is worth what `value` makes of its acts' values, `[S]`."""
        values = np.zeros(len(reward))
        for _ in range(_MAX_SWEEPS):
            action_values = reward + (self._leads @ values).reshape(reward.shape)
            values, before = value(action_values), values
            if np.abs(values - before).max() <= _TOLERANCE * max(1.0, np.abs(values).max()):
                return np.asarray(action_values)
        raise ValueError(f"values have not settled after {_MAX_SWEEPS:,} sweeps; does every policy come to an end?")

    def charged(self, prices: Mapping[str, float]) -> Floats:
        """The reward less the costs at these prices, `[S, A]`."""
        return self.reward - sum((price * self.costs[name] for name, price in prices.items() if name in self.costs), np.zeros(self.reward.shape))

    def greedy(self, prices: Mapping[str, float]) -> Floats:
        """The best policy where costs are charged at these prices."""
        return one_hot(self.solve(self.charged(prices)).argmax(axis=1), self.mask.shape)

    def occupancy(self, policy: Floats) -> Floats:
        """Expected number of times an episode takes each act in each state, `[S, A]`."""
        total, present = np.zeros(policy.shape), self._start
        for _ in range(_MAX_SWEEPS):
            acted = present[:, None] * policy
            total += acted
            present = self._leads.T @ acted.reshape(-1)
            if present.sum() < 1e-12:
                return total
        raise ValueError(f"a policy has not come to an end after {_MAX_SWEEPS:,} acts")

    def divergence(self, occupancy: Floats, reference: Floats) -> float:
        """KL of an occupancy's episodes to those of a reference policy that takes all of its acts too, nats."""
        return float(rel_entr(occupancy, occupancy.sum(axis=1, keepdims=True) * reference).sum())

    def worth(self, occupancy: Floats) -> Reference:
        """Return and costs of an occupancy."""
        reward = np.where(self.mask, self.reward, 0.0)
        return Reference(float((occupancy * reward).sum()), {name: float((occupancy * cost).sum()) for name, cost in self.costs.items()})

    def always(self, act: int) -> Floats:
        """One act wherever it is allowed, any other elsewhere."""
        allowed = self.mask[:, act]
        uniform = self.mask / self.mask.sum(axis=1, keepdims=True)
        return np.where(allowed[:, None], np.eye(self.mask.shape[1])[act], uniform)

    def open_loop(self) -> float:
        """Coordinate ascent on a fixed sequence of acts, from the best constant one: never less, and at most the best sequence."""
        reward = np.where(self.mask, self.reward, 0.0)
        policies = [self.always(act) for act in range(self.mask.shape[1])]
        earns = [(policy * reward).sum(axis=1) for policy in policies]
        n_states = len(reward)
        rows = np.repeat(np.arange(n_states), self.mask.shape[1])
        moves = [csr_matrix((policy.reshape(-1), (rows, np.arange(policy.size))), shape=(n_states, policy.size)) @ self._leads for policy in policies]
        best = max(range(len(policies)), key=lambda act: self.worth(self.occupancy(policies[act])).value)
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


def one_hot(acts: Ints, shape: tuple[int, ...]) -> Floats:
    """The policy that takes one act in each state."""
    return np.asarray(np.arange(shape[1]) == acts[:, None], dtype=float)
