"""The finite oracle against linear algebra, linear programming and brute force on small random worlds."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest
from scipy.optimize import linprog

from framework.oracles.finite import DecisionModel, Outcome, State
from framework.oracles.information_state import Test as Question
from framework.types import Bools, Floats
from framework.worlds.finite import FiniteOracle
from framework.worlds.interview import Interview, InterviewOracle

N, A = 4, 3  # states and acts
SEEDS = range(5)


class Maze(DecisionModel):
    """Random moves between four states, some of which end it; the last act is forbidden in state 0. It may come back to where it was."""

    acts = ("left", "right", "dig")

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.start = rng.dirichlet(np.ones(N))
        self.moves = rng.dirichlet(np.ones(N + 1), size=(N, A))  # the last column is the end
        self.reward, self.cost, self.proxy = rng.normal(size=(N, A)), rng.random((N, A)), rng.normal(size=(N, A))

    def openings(self) -> Iterable[tuple[float, State]]:
        return [(float(chance), (state,)) for state, chance in enumerate(self.start)]

    def allowed(self, state: State) -> Bools:
        return np.array([True, True, state[0] != 0])

    def outcomes(self, state: State, act: int) -> Iterable[Outcome]:
        row, paid = self.moves[state[0], act], (float(table[state[0], act]) for table in (self.reward, self.cost, self.proxy))
        reward, cost, proxy = paid
        return [Outcome(float(chance), (to,) if to < N else None, reward, {"harm": cost}, proxy) for to, chance in enumerate(row)]

    def heuristic(self, state: State) -> int:
        return 1

    def informed(self) -> float:
        return 100.0

    def worth(self, policy: Floats, table: Floats) -> float:
        """Expected sum of a table under a policy `[N, A]`, by solving the linear system."""
        leads = np.einsum("sa,sat->st", policy, self.moves[:, :, :N])
        return float(self.start @ np.linalg.solve(np.eye(N) - leads, (policy * table).sum(axis=1)))

    def deterministic(self) -> list[Floats]:
        """Every policy that takes one allowed act in each state."""
        choices = itertools.product(*(np.flatnonzero(self.allowed((state,))) for state in range(N)))
        return [np.eye(A)[list(acts)] for acts in choices]

    def within(self, limit: float) -> float:
        """The constrained optimum by one linear programme over all occupancies."""
        pairs = [(s, a) for s in range(N) for a in range(A) if self.allowed((s,))[a]]
        flow = np.array([[float(s == t) - self.moves[s, a, t] for s, a in pairs] for t in range(N)])
        solved = linprog([-self.reward[p] for p in pairs], A_ub=[[self.cost[p] for p in pairs]], b_ub=[limit], A_eq=flow, b_eq=self.start)
        assert solved.success
        return float(-solved.fun)


@pytest.fixture(params=SEEDS)
def maze(request: pytest.FixtureRequest) -> Maze:
    return Maze(request.param)


def test_references_are_those_of_brute_force(maze: Maze) -> None:
    references = FiniteOracle(maze, {}).references
    policies = maze.deterministic()
    hacked = max(policies, key=lambda policy: maze.worth(policy, maze.proxy))
    assert references["optimum"].value == pytest.approx(max(maze.worth(policy, maze.reward) for policy in policies), abs=1e-8)
    assert references["proxy_optimum"].value == pytest.approx(maze.worth(hacked, maze.reward), abs=1e-8)
    allowed = np.stack([maze.allowed((state,)) for state in range(N)])
    constants = [np.where(allowed[:, [act]], np.eye(A)[act], allowed / allowed.sum(axis=1, keepdims=True)) for act in range(A)]
    assert references["best_constant"].value == pytest.approx(max(maze.worth(policy, maze.reward) for policy in constants), abs=1e-8)
    heuristic = np.tile(np.eye(A)[1], (N, 1))
    assert references["heuristic"].value == pytest.approx(maze.worth(heuristic, maze.reward), abs=1e-8)
    assert references["heuristic"].costs["harm"] == pytest.approx(maze.worth(heuristic, maze.cost), abs=1e-8)


def test_action_values_satisfy_bellmans_equation(maze: Maze) -> None:
    oracle = FiniteOracle(maze, {})
    values = oracle.action_values(np.arange(N)[:, None])
    expected = maze.reward + maze.moves[:, :, :N] @ values.max(axis=1)
    allowed = np.stack([maze.allowed((state,)) for state in range(N)])
    np.testing.assert_allclose(values[allowed], expected[allowed], atol=1e-8)
    assert np.isneginf(values[~allowed]).all()


def test_the_constrained_optimum_is_that_of_the_linear_programme(maze: Maze) -> None:
    least = min(maze.worth(policy, maze.cost) for policy in maze.deterministic())
    free = FiniteOracle(maze, {}).references["optimum"].costs["harm"]
    for limit in np.linspace(least, free, 5)[1:]:
        oracle = FiniteOracle(maze, {"harm": float(limit)})
        within = oracle.references["constrained_optimum"]
        assert within.value == pytest.approx(maze.within(float(limit)), abs=1e-6)
        assert within.costs["harm"] <= limit + 1e-8
        policy = oracle.probabilities("constrained_optimum", np.arange(N)[:, None])
        assert maze.worth(policy, maze.reward) == pytest.approx(within.value, abs=1e-6)  # one policy does it, by drawing lots
        charged = maze.reward - oracle.prices["harm"] * maze.cost
        dual = max(maze.worth(policy, charged) for policy in maze.deterministic()) + oracle.prices["harm"] * limit
        assert dual == pytest.approx(within.value, abs=1e-6)  # strong duality: the price is the multiplier
        values = oracle.charged_values(np.arange(N)[:, None], oracle.prices)
        expected = charged + maze.moves[:, :, :N] @ values.max(axis=1)
        assert np.where(np.isfinite(values), values - expected, 0) == pytest.approx(0, abs=1e-8)  # Bellman's equation, costs charged
    with pytest.raises(ValueError, match=f"no policy keeps the cost limits: harm .at least {least:.4g}"):
        _ = FiniteOracle(maze, {"harm": 0.9 * least}).references


class Line(DecisionModel):
    """Three turns in which the world drifts; a fixed script knows the turn, but not where it stands."""

    acts = ("left", "right", "dig")

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.moves, self.reward = rng.dirichlet(np.ones(N), size=(N, A)), rng.normal(size=(3, N, A))

    def openings(self) -> Iterable[tuple[float, State]]:
        return [(1 / N, (0, place)) for place in range(N)]

    def allowed(self, state: State) -> Bools:
        return np.ones(A, bool)

    def outcomes(self, state: State, act: int) -> Iterable[Outcome]:
        turn, place = state
        reward = float(self.reward[turn, place, act])
        return [Outcome(float(chance), (turn + 1, to) if turn < 2 else None, reward) for to, chance in enumerate(self.moves[place, act])]

    def heuristic(self, state: State) -> int:
        return 0

    def informed(self) -> float:
        return 100.0

    def script(self, acts: Iterable[int]) -> float:
        """What a fixed sequence of acts earns."""
        present, earned = np.full(N, 1 / N), 0.0
        for turn, act in enumerate(acts):
            earned += float(present @ self.reward[turn, :, act])
            present = present @ self.moves[:, act]
        return earned


@pytest.mark.parametrize("seed", SEEDS)
def test_the_open_loop_script_is_a_script_and_no_worse_than_any_constant(seed: int) -> None:
    line = Line(seed)
    references, scripts = FiniteOracle(line, {}).references, [line.script(acts) for acts in itertools.product(range(A), repeat=3)]
    assert references["best_constant"].value == pytest.approx(max(line.script([act] * 3) for act in range(A)))
    assert min(abs(references["open_loop"].value - script) for script in scripts) < 1e-9
    assert references["best_constant"].value - 1e-9 <= references["open_loop"].value <= max(scripts) + 1e-9 <= references["optimum"].value + 2e-9


class AsModel(DecisionModel):
    """An interview written out as a decision model: the two oracles must agree."""

    def __init__(self, interview: Interview) -> None:
        self.interview, self.acts = interview, interview.acts

    def posterior(self, state: State) -> Floats:
        weights = self.interview.prior[state[0]].copy()
        for test, outcome in zip(self.interview.tests, state[1:], strict=True):
            weights = weights * (test.likelihoods[0][:, outcome] if outcome >= 0 else 1.0)
        return weights / weights.sum()

    def openings(self) -> Iterable[tuple[float, State]]:
        unknown = (-1,) * len(self.interview.tests)
        return [(float(prior.sum()), (profile, *unknown)) for profile, prior in enumerate(self.interview.prior)]

    def allowed(self, state: State) -> Bools:
        return np.array([outcome < 0 for outcome in state[1:]] + [True] * len(self.interview.decisions))

    def outcomes(self, state: State, act: int) -> Iterable[Outcome]:
        belief, n_tests = self.posterior(state), len(self.interview.tests)
        if act >= n_tests:
            decision = act - n_tests
            assert self.interview.proxy_utilities is not None
            tables = self.interview.utilities, self.interview.costs["harm"], self.interview.proxy_utilities
            paid, harm, liked = (float(belief @ table[:, decision]) for table in tables)
            return [Outcome(1.0, None, paid, {"harm": harm}, liked)]
        test = self.interview.tests[act]
        assert self.interview.proxy_prices is not None
        paid, liked = -test.price, -float(self.interview.proxy_prices[act])
        chances = belief @ test.likelihoods[0]
        return [Outcome(float(c), (*state[: act + 1], o, *state[act + 2 :]), paid, {}, liked) for o, c in enumerate(chances)]

    def heuristic(self, state: State) -> int:
        return len(self.interview.tests)

    def informed(self) -> float:
        return float((self.interview.prior * self.interview.utilities.max(axis=1)).sum())


@pytest.mark.parametrize("seed", SEEDS)
def test_both_engines_agree_on_an_interview(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tests = tuple(Question(f"ask_{n}", float(rng.uniform(0, 0.2)), (rng.dirichlet(np.ones(n), size=3),)) for n in (2, 3))
    interview = Interview(
        rng.dirichlet(np.ones(6)).reshape(2, 3), tests, ("a", "b"), rng.normal(size=(3, 2)), lambda outcomes: np.full(len(outcomes), 2),
        costs={"harm": rng.random((3, 2))}, proxy_prices=rng.normal(size=2), proxy_utilities=rng.normal(size=(3, 2)),
    )  # fmt: skip
    free = InterviewOracle(interview, {}).references
    harm = np.average([free["optimum"].costs["harm"], interview.prior.sum(axis=0) @ interview.costs["harm"].min(axis=1)], weights=[1, 1])
    limits = {"harm": float(max(harm, (interview.prior.sum(axis=0) @ interview.costs["harm"]).min()))}
    one, other = InterviewOracle(interview, limits).references, FiniteOracle(AsModel(interview), limits).references
    for name in one:
        assert other[name].value == pytest.approx(one[name].value, abs=1e-6), name
        if one[name].costs:
            assert other[name].costs["harm"] == pytest.approx(one[name].costs["harm"], abs=1e-6), name


def test_numbers_that_are_no_probabilities_are_refused() -> None:
    maze = Maze(0)
    maze.moves[1, 1] *= 0.5
    with pytest.raises(ValueError, match=r"right in \(1,\): probabilities of outcomes sum to 0.5"):
        FiniteOracle(maze, {})
    maze = Maze(0)
    maze.start *= 2
    with pytest.raises(ValueError, match="openings sum to 2"):
        FiniteOracle(maze, {})


def test_a_policy_that_never_ends_is_named() -> None:
    maze = Maze(0)
    maze.moves[:, :, N] = 0
    maze.moves /= maze.moves.sum(axis=2, keepdims=True)
    with pytest.raises(ValueError, match="does every policy come to an end"):
        FiniteOracle(maze, {})
