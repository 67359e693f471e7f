"""The suitability desk, played: real rewards agree with exact values, and evaluation estimates what it says with less noise."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from framework.config import load_domain
from framework.evaluation import Evaluation, evaluate
from framework.interfaces import Oracle, Policy
from framework.types import Floats, Ints, Observations
from framework.worlds.interview import InterviewDomain

EPISODES = 2_000


@cache
def world(environment: str) -> InterviewDomain:
    domain: InterviewDomain = load_domain("finance", environment)
    return domain


@pytest.fixture
def desk() -> InterviewDomain:
    return world("SuitabilityDesk")


class Following(Policy):
    """A reference policy; with chance `slip` any allowed act, or (where `careless`) any act at all."""

    def __init__(self, oracle: Oracle, reference: str, slip: float = 0.0, careless: bool = False) -> None:
        self.oracle, self.reference, self.slip, self.careless, self.rng = oracle, reference, slip, careless, np.random.default_rng(11)

    def act(self, observations: Observations, deterministic: bool = False) -> Ints:
        masks = np.ones_like(observations.masks) if self.careless else observations.masks
        chances = (1 - self.slip) * self.oracle.probabilities(self.reference, observations.states)
        chances = chances + self.slip * masks / masks.sum(axis=1, keepdims=True)
        return np.array([self.rng.choice(len(row), p=row / row.sum()) for row in chances])


def plain_returns(found: Evaluation) -> Floats:
    return np.array([sum(sum(step.reward_terms.values()) for step in episode.steps) for episode in found.stories])


def standard_error(sample: Floats) -> float:
    return float(sample.std(ddof=1) / len(sample) ** 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["test", "shift"])
@pytest.mark.parametrize("reference", ["optimum", "heuristic", "random"])
def test_played_rewards_and_costs_agree_with_exact_values(desk: InterviewDomain, reference: str, split: str) -> None:
    exact = desk.oracle(split).references[reference]
    found = evaluate(Following(desk.oracle(split), reference), desk, split, EPISODES, stories=EPISODES)
    returns = plain_returns(found)
    assert abs(returns.mean() - exact.value) <= 4 * standard_error(returns)
    for name, cost in exact.costs.items():
        error = max(np.sqrt(cost * (1 - cost) / EPISODES), 1e-12)  # a violation happens or not
        assert abs(found.costs[name] - cost) <= 4 * error, name


@pytest.mark.slow
@pytest.mark.parametrize("careless", [False, True], ids=["allowed", "careless"])
def test_evaluation_estimates_the_return_with_less_noise(desk: InterviewDomain, careless: bool) -> None:
    sloppy = Following(desk.oracle("validation"), "optimum", slip=0.1, careless=careless)
    found = evaluate(sloppy, desk, "validation", EPISODES, stories=EPISODES)
    returns = plain_returns(found)
    assert abs((found.values - returns).mean()) <= 4 * standard_error(found.values - returns)
    assert found.values.var() < 0.6 * returns.var()
    assert found.costs.get("format", 0.0) > 0 if careless else "format" not in found.costs


@pytest.mark.slow
def test_evaluation_agrees_with_exact_values(desk: InterviewDomain) -> None:
    oracle = desk.oracle("validation")
    for reference in ("heuristic", "random"):
        found = evaluate(Following(oracle, reference), desk, "validation", EPISODES)
        assert abs(found.values.mean() - oracle.references[reference].value) <= 4 * standard_error(found.values)


@pytest.mark.slow
@pytest.mark.parametrize("environment", ["SuitabilityDesk", "CreditDesk"])
def test_the_optimum_scores_one_without_doubt(environment: str) -> None:
    domain = world(environment)
    found = evaluate(Following(domain.oracle("test"), "optimum"), domain, "test", 500)
    assert found.score is not None
    assert [found.score.mean, found.score.low, found.score.high] == pytest.approx([1, 1, 1], abs=1e-12)
    assert sum(times for act, times in found.acts.items() if act in domain.make("test").interview.decisions) == pytest.approx(1)  # an episode has one decision


@pytest.mark.slow
@pytest.mark.parametrize("environment", ["SuitabilityDesk", "CreditDesk"])
def test_silence_does_not_pay(environment: str) -> None:
    """To idle until the clock runs out earns the worst decision, in the reward as in the evaluation."""
    desk = world(environment)
    played, worlds = [], desk.make("train")
    for seed in range(20):
        _, info = worlds.reset(seed=seed)
        earned, ended = 0.0, False
        while not ended:
            _, reward, terminated, truncated, info = worlds.idle()
            earned, ended = earned + reward, terminated or truncated
        assert truncated and info["reward_terms"] == {"abandoned": earned} and earned == worlds.interview.utilities[worlds.hypothesis].min()
        played.append(earned)
    assert np.mean(played) < desk.oracle("train").references["random"].value

    class Silent(Policy):
        def act(self, observations: Observations, deterministic: bool = False) -> Ints:
            return np.full(len(observations.texts), -1)

    found = evaluate(Silent(), desk, "validation", 300, stories=300)
    assert found.acts == {"": worlds.max_steps}
    difference = found.values - plain_returns(found)  # how good this client is to have
    assert abs(difference.mean()) <= 4 * standard_error(difference) + 1e-12  # the second for rounding alone


@pytest.mark.slow
def test_random_acts_score_zero(desk: InterviewDomain) -> None:
    found = evaluate(Following(desk.oracle("test"), "random"), desk, "test", EPISODES)
    assert found.score is not None
    assert abs(found.score.mean) < found.score.high - found.score.low  # two half-widths: about 4 standard errors


def test_one_seed_is_one_client_whoever_asks(desk: InterviewDomain) -> None:
    """Answers hang on the client and the question, not on what was asked before."""
    income, horizon = (desk.acts.index(f"ask_{topic}") for topic in ("income", "horizon"))
    told = []
    for order in ([income, horizon], [horizon, income]):
        world = desk.make("train")
        world.reset(seed=3)
        for act in order:
            world.step(act)
        told.append((world.information_state(), sorted(world.lines)))
    assert told[0] == told[1]
