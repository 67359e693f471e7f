"""The dynamic programme against brute force: expectimax over histories, with Bayes worked out from scratch at each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pytest

from framework.oracles.information_state import InformationStateDP
from framework.oracles.information_state import Test as Question  # under its own name pytest would collect it
from framework.types import Floats
from framework.worlds.interview import Interview, InterviewOracle

SEEDS = range(6)
Seen = tuple[tuple[int, int], ...]  # (test, outcome within the version in force) in the order they were made


@dataclass(frozen=True)
class Case:
    """A small interview. Test 0 has two versions: the second, of other outcomes, once test 2 has been made."""

    prior: Floats
    prices: Floats
    plain: tuple[Floats, ...]
    sharp: Floats
    utilities: Floats

    def dp(self) -> InformationStateDP:
        return InformationStateDP(self.prior, self.questions(), self.utilities)

    def questions(self) -> tuple[Question, ...]:
        first = Question("first", self.prices[0], (self.plain[0], self.sharp), "modifier")
        return first, Question("second", self.prices[1], (self.plain[1],)), Question("modifier", self.prices[2], (self.plain[2],))

    def table(self, test: int, seen: Seen) -> Floats:
        return self.sharp if test == 0 and any(done == 2 for done, _ in seen) else self.plain[test]

    def weights(self, profile: int, seen: Seen) -> Floats:
        """P(profile, hypothesis, what was seen | just these tests), `[H]`."""
        weights = self.prior[profile]
        for turn, (test, outcome) in enumerate(seen):
            weights = weights * self.table(test, seen[:turn])[:, outcome]
        return weights

    def outcomes(self, profile: int, seen: Seen, test: int) -> Iterator[tuple[float, Seen]]:
        """Each outcome that a test can have now: its chance, and what has been seen then."""
        before = self.weights(profile, seen).sum()
        for outcome in range(self.table(test, seen).shape[1]):
            after = (*seen, (test, outcome))
            chance = self.weights(profile, after).sum() / before
            if chance > 0:
                yield chance, after

    def state(self, profile: int, seen: Seen) -> tuple[int, ...]:
        """As the programme writes it: outcomes of the second version are numbered after the first's."""
        outcomes = [-1, -1, -1]
        for turn, (test, outcome) in enumerate(seen):
            outcomes[test] = outcome + (self.plain[0].shape[1] if self.table(test, seen[:turn]) is self.sharp else 0)
        return (profile, *outcomes)

    def action_values(self, profile: int, seen: Seen) -> Floats:
        posterior = self.weights(profile, seen) / self.weights(profile, seen).sum()
        asked = {test for test, _ in seen}
        tests = [-np.inf if test in asked else self.worth(profile, seen, test) for test in range(3)]
        return np.array([*tests, *(posterior @ self.utilities)])

    def worth(self, profile: int, seen: Seen, test: int) -> float:
        return -self.prices[test] + sum(chance * self.action_values(profile, after).max() for chance, after in self.outcomes(profile, seen, test))

    def histories(self, profile: int, seen: Seen = ()) -> Iterator[Seen]:
        yield seen
        for test in set(range(3)) - {test for test, _ in seen}:
            for _, after in self.outcomes(profile, seen, test):
                yield from self.histories(profile, after)


def make_case(seed: int) -> Case:
    """Random numbers; every third case has a test that rules hypotheses out."""
    rng = np.random.default_rng(seed)
    plain = tuple(rng.dirichlet(np.ones(n), size=3) for n in (2, 3, 2))
    if seed % 3 == 0:
        plain = (plain[0], np.eye(3), plain[2])
    return Case(rng.dirichlet(np.ones(6)).reshape(2, 3), rng.uniform(0, 0.3, 3), plain, rng.dirichlet(np.ones(3), size=3), rng.normal(size=(3, 3)))


@pytest.fixture(params=SEEDS)
def case(request: pytest.FixtureRequest) -> Case:
    return make_case(request.param)


def test_action_values_are_those_of_expectimax(case: Case) -> None:
    dp = case.dp()
    solution = dp.solve()
    for profile in range(2):
        for seen in case.histories(profile):
            row = dp.index(np.array([case.state(profile, seen)]))[0]
            expected = case.action_values(profile, seen)
            np.testing.assert_allclose(solution.action_values[row], expected, atol=1e-10)
            np.testing.assert_array_equal(np.isneginf(solution.action_values[row]), ~dp.mask[row])
            assert expected[solution.greedy[row]] == pytest.approx(expected.max(), abs=1e-10)


def test_optimal_value_is_that_of_expectimax(case: Case) -> None:
    dp = case.dp()
    expected = sum(case.prior[profile].sum() * case.action_values(profile, ()).max() for profile in range(2))
    occupancy = dp.occupancy(dp.greedy(dp.solve().greedy))
    assert dp.value(occupancy, dp.expected(case.utilities)) == pytest.approx(expected, abs=1e-10)


def test_occupancy_and_value_of_a_random_policy(case: Case) -> None:
    dp = case.dp()
    policy = np.random.default_rng(1).random(dp.mask.shape) * dp.mask
    policy /= policy.sum(axis=1, keepdims=True)
    visits, earned, paid = np.zeros(policy.shape), 0.0, 0.0

    def follow(profile: int, seen: Seen, reach: float) -> None:
        nonlocal earned, paid
        row = dp.index(np.array([case.state(profile, seen)]))[0]
        visits[row] += reach * policy[row]
        posterior = case.weights(profile, seen) / case.weights(profile, seen).sum()
        earned += reach * float(policy[row, 3:] @ (posterior @ case.utilities))
        for test in set(range(3)) - {test for test, _ in seen}:
            paid += reach * policy[row, test] * case.prices[test]
            for chance, after in case.outcomes(profile, seen, test):
                follow(profile, after, reach * policy[row, test] * chance)

    for profile in range(2):
        follow(profile, (), case.prior[profile].sum())
    occupancy, values = dp.occupancy(policy), dp.expected(case.utilities)
    np.testing.assert_allclose(occupancy, visits, atol=1e-12)
    assert dp.value(occupancy, values) == pytest.approx(earned - paid, abs=1e-10)
    assert dp.value(occupancy, values, prices=False) == pytest.approx(earned, abs=1e-10)
    assert occupancy[:, 3:].sum() == pytest.approx(1)  # every episode ends in one decision


def test_references_of_the_oracle(case: Case) -> None:
    oracle = InterviewOracle(interview_of(case), {})
    expected: Mapping[str, float] = {
        "best_constant": (case.prior.sum(axis=0) @ case.utilities).max(),
        "informed": float((case.prior.sum(axis=0) * case.utilities.max(axis=1)).sum()),
        "optimum": sum(case.prior[profile].sum() * case.action_values(profile, ()).max() for profile in range(2)),
    }
    assert {name: oracle.references[name].value for name in expected} == pytest.approx(expected, abs=1e-10)
    assert oracle.references["heuristic"].costs["hasty"] == pytest.approx(1)  # it never makes the second test


def test_informed_by_tests_knows_all_outcomes_and_no_more(case: Case) -> None:
    interview = interview_of(case, informed_by="tests")
    expected = 0.0
    for profile in range(2):
        for a, b, c in np.ndindex(2, 3, 2):
            weights = case.prior[profile] * case.plain[0][:, a] * case.plain[1][:, b] * case.plain[2][:, c]
            expected += (weights @ case.utilities).max()
    assert InterviewOracle(interview, {}).references["informed"].value == pytest.approx(expected, abs=1e-10)


def test_index_and_outcomes_are_inverse() -> None:
    dp = make_case(0).dp()
    per_profile = len(dp.outcomes) // 2
    states = np.column_stack([np.repeat([0, 1], per_profile), dp.outcomes])
    np.testing.assert_array_equal(dp.index(states), np.arange(len(states)))
    np.testing.assert_array_equal(dp.outcomes[dp.roots], -1)
    assert dp.probability[dp.roots].sum() == pytest.approx(1)


def test_a_prior_sums_to_one() -> None:
    case = make_case(1)
    with pytest.raises(ValueError, match="sums to 0.5"):
        InformationStateDP(case.prior / 2, case.questions(), case.utilities)


@pytest.mark.parametrize("n_tests", [12, 25])
def test_a_table_too_large_is_refused(n_tests: int) -> None:
    case = make_case(1)
    many = [Question(f"test_{number}", 0.0, (case.plain[1],)) for number in range(n_tests)]
    with pytest.raises(ValueError, match="information states"):
        InformationStateDP(case.prior, many, case.utilities)


def interview_of(case: Case, **settings: str) -> Interview:
    """The case as an interview whose heuristic takes the first decision at once."""
    return Interview(
        case.prior, case.questions(), ("a", "b", "c"), case.utilities, lambda outcomes: np.full(len(outcomes), 3),
        duties={"hasty": (("second",),)}, **settings,  # type: ignore[arg-type]
    )  # fmt: skip
