"""Costs as constraints: dual ascent by hand, prices by hand, and a world with a known constrained optimum that is learnt and kept.

`risky` pays 1 whatever is told, and harms by colour; `safe` pays 0.7 and harms nobody; `idle` pays nothing. With at most 0.05 harm an
episode one takes the risk where red is told (free) and where green is told (0.1 / 3 an episode), and where blue is told once in sixteen
times: 0.8 / 3 * x = 0.05 - 0.1 / 3. The last unit of harm buys 0.3 / 0.8 of reward.
"""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from test_probes import Probe, algorithm, fresh_policy

sys.path.append(str(Path(__file__).parents[1] / "reliability"))
from runs import QUICK, SMALL, built_here, start_here

from framework.algorithms.lagrangian import Charged, dual_ascent
from framework.algorithms.sb3 import StableBaselines
from framework.config import CONF, build
from framework.constrained import cautious_limits, cautious_prices, check_limits, constrained_score, excess, within_limits
from framework.errors import ConfigError
from framework.evaluation import Evaluation, evaluate
from framework.interfaces import Learning
from framework.oracles.information_state import Test as Question
from framework.policies.head import HeadPolicy
from framework.worlds.interview import Interview

LIMIT = {"harm": 0.05}
HARM = np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.8, 0.0, 0.0]])  # by colour: of risky, safe, idle


class Risky(Probe):
    """See above."""

    def __init__(self, **limits: float) -> None:
        super().__init__("named")
        self.cost_limits = limits or LIMIT

    def interview(self, shifted: bool) -> Interview:
        question = Question("look", 0.1, (np.full((3, 3), 1 / 3),))
        utilities = np.tile([1.0, 0.7, 0.0], (3, 1))
        return Interview(np.eye(3) / 3, (question,), ("risky", "safe", "idle"), utilities, lambda seen: np.ones(len(seen), np.int64), {"harm": HARM})


class Harmful(Risky):
    """All acts harm."""

    def interview(self, shifted: bool) -> Interview:
        return replace(super().interview(shifted), costs={"harm": HARM + 0.5})


def test_dual_ascent_by_hand() -> None:
    multipliers, limits = np.array([0.0, 0.5, 0.1]), np.array([0.1, 0.2, 0.0])
    for costs, expected in (
        ([0.3, 0.1, 0.02], [0.2, 0.45, 0.3]),  # + 0.1 * (0.2 / 0.1, -0.1 / 0.2, 0.02 / 0.01)
        ([0.0, 0.2, 0.0], [0.1, 0.45, 0.3]),
        ([0.0, 0.0, 0.0], [0.0, 0.35, 0.3]),
        ([0.0, 1.0, 0.0], [0.0, 0.75, 0.3]),  # never below zero
    ):
        multipliers = dual_ascent(multipliers, np.array(costs), limits, rate=0.1)
        np.testing.assert_allclose(multipliers, expected)


class Costly(gymnasium.Env[np.ndarray, int]):
    """Two steps an episode, each of which pays 1 and harms by 0.5; every other episode is begun by chance."""

    observation_space, action_space = gymnasium.spaces.Box(0, 1, (1,)), gymnasium.spaces.Discrete(2)
    episodes = steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.episodes, self.steps = self.episodes + 1, 0
        return np.zeros(1, np.float32), {} if self.episodes % 2 else {"explored": True}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.zeros(1, np.float32), 1.0, self.steps == 2, False, {"costs": {"harm": 0.5, "noise": 9.0}}


def test_the_learner_is_charged_and_the_account_is_of_the_policys_own_episodes() -> None:
    worlds = Charged(DummyVecEnv([lambda: Monitor(Costly())]), ["harm", "waste"])
    worlds.reset()
    worlds.prices = np.array([0.4, 100.0])
    paid = [worlds.step(np.zeros(1, int))[1].item() for _ in range(8)]
    assert paid == pytest.approx([0.8] * 8)  # 1 - 0.4 * 0.5, whoever began the episode
    assert worlds.finished == [[2.0, 1.0, 0.0]] * 2  # the worlds' own return, then costs; the first and the third of four episodes


def test_the_oracle_knows_the_prices() -> None:
    oracle = Risky().oracle("train")
    within = oracle.references["constrained_optimum"]
    assert within.value == pytest.approx(2 / 3 + (0.7 + 0.3 / 16) / 3) and within.costs["harm"] == pytest.approx(0.05)
    assert oracle.prices == pytest.approx({"harm": 0.3 / 0.8})
    opened = np.array([[colour, -1] for colour in range(3)])
    charged = oracle.charged_values(opened, oracle.prices)
    np.testing.assert_allclose(charged[:, 1:], np.tile([1.0, 0.7, 0.0], (3, 1)) - 0.375 * HARM)  # risky and safe tie where blue is told
    np.testing.assert_allclose(charged[:, 0], charged[:, 1:].max(axis=1) - 0.1)
    np.testing.assert_allclose(oracle.charged_values(opened, {"harm": 1.0, "other": 5.0})[:, 1:], np.tile([1.0, 0.7, 0.0], (3, 1)) - HARM)
    np.testing.assert_allclose(oracle.charged_values(opened, {}), oracle.action_values(opened))


def test_a_limit_that_does_not_bind_has_no_price() -> None:
    assert Risky(harm=0.31).oracle("train").prices == {"harm": 0.0}


def test_cautious_demonstrations_keep_the_limit() -> None:
    domain = Risky()
    prices = cautious_prices(domain.oracle("train"), caution=0.2)
    span = 1.0 - domain.oracle("train").references["random"].value
    assert prices == pytest.approx({"harm": 1.2 * 0.375 + 0.2 * span})
    shown = domain.demonstrations("train", seed=0, prices=prices)
    chosen = {(situation.state[0], int(situation.action_values.argmax())) for situation, _ in zip(shown, range(100), strict=False)}
    assert chosen == {(0, 1), (1, 1), (2, 2)}  # risky, risky, safe


def test_caution_aims_below_the_limits() -> None:
    assert cautious_limits({"harm": 0.1, "format": 0.0}, 0.2) == pytest.approx({"harm": 0.08, "format": 0.0})
    assert cautious_limits({"harm": 0.1}, 0.0) == {"harm": 0.1} and cautious_limits({"harm": 0.1}, 1.5) == {"harm": 0.0}


def learned(learner: StableBaselines, domain: Risky, policy: HeadPolicy) -> Evaluation:
    learner.learn(policy, lambda: domain.make("train"), Learning(lambda *_: True, 0, torch.device("cpu"), cost_limits=domain.cost_limits))
    return evaluate(policy, domain, "test", 500)


def constrained(**changed: Any) -> StableBaselines:
    """`algo=ppo_lagrangian`, small."""
    small = {
        key: getattr(algorithm("ppo"), key) for key in ("total_steps", "n_envs", "learning_rate", "exploring_starts", "exploring_acts", "n_steps", "batch_size")
    }
    settings = {**OmegaConf.load(CONF / "algo" / "ppo.yaml"), **OmegaConf.load(CONF / "algo" / "ppo_lagrangian.yaml"), **small, "critic_warmup": 0.0}
    del settings["defaults"]
    built: StableBaselines = build({**settings, **changed}, "algo")
    return built


@pytest.mark.slow
def test_the_limit_is_kept_where_ppo_breaks_it() -> None:
    domain = Risky()
    free = learned(algorithm("ppo"), domain, fresh_policy(domain))
    assert free.costs["harm"] > 4 * LIMIT["harm"] and free.returns.mean > 0.98
    kept = learned(constrained(), domain, fresh_policy(domain))
    assert excess(kept.costs, LIMIT) == 0 and constrained_score(kept.returns, domain.oracle("test")).mean > 0.95, (kept.returns, kept.costs)


def test_limits_that_cannot_be_kept_are_told() -> None:
    place = "domain.worlds.Probe.cost_limits"
    with pytest.raises(ConfigError, match=rf"{place}.hram: nothing costs that in Probe; did you mean 'harm'\?"):
        check_limits(Risky(hram=0.1))
    empty = Risky()
    empty.cost_limits = {}
    with pytest.raises(ConfigError, match=f"{place}: is empty"):
        check_limits(empty)
    check_limits(Risky(harm=0.0, format=0.0))
    with pytest.raises(ConfigError, match=rf"{place}: in the split train no policy keeps the cost limits: harm \(at least 0.5\); allow more"):
        check_limits(Harmful(harm=0.4))


WORLDS = {"Two": {"size": 1, "cost_limits": {"harm": 0.05, "waste": 0.2}}, "One": {"cost_limits": {"harm": 0.05}}, "None": {"size": 1}}


@pytest.mark.parametrize(
    ("environment", "asked", "limits"),
    [
        ("Two", None, {"harm": 0.05, "waste": 0.2}),
        ("Two", {"waste": 0.1}, {"harm": 0.05, "waste": 0.1}),
        ("Two", {"waste": 0.0, "harm": 1.0}, {"harm": 1.0, "waste": 0.0}),
        ("One", 0.0, {"harm": 0.0}),
        ("One", {"harm": 0.3}, {"harm": 0.3}),
    ],
)
def test_limits_in_place_of_the_domains_own(environment: str, asked: float | dict[str, float] | None, limits: dict[str, float]) -> None:
    given: dict[str, Any] = {"name": "desk", "environment": environment, "worlds": copy.deepcopy(WORLDS)}
    found = within_limits(given, asked)
    assert given["worlds"] == WORLDS, "a copy is changed"
    given["worlds"][environment]["cost_limits"] = limits
    assert found == given, "and nothing else in it"


@pytest.mark.parametrize(
    ("environment", "asked", "told"),
    [
        ("Two", 0.1, "algo.cost_limit: 0.1 must say of which cost: Two limits harm, waste"),
        ("None", 0.1, "algo.cost_limit: 0.1 must say of which cost: None limits none"),
        ("Two", {"hram": 0.1}, r"algo.cost_limit.hram: Two has no such limit; did you mean 'harm'\? .*\+domain.worlds.Two.cost_limits.hram="),
        ("None", {"harm": 0.1}, r"algo.cost_limit.harm: None has no such limit \(there are: none\)"),
    ],
)
def test_limits_that_are_not_there_are_told(environment: str, asked: float | dict[str, float], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        within_limits({"name": "desk", "environment": environment, "worlds": WORLDS}, asked)


@pytest.mark.slow
def test_another_limit_holds_from_the_demonstrations_to_a_later_judgement(tmp_path: Path) -> None:
    limit, few = 0.02, ("experiment.episodes=50", "tracker=none")
    arguments = (*QUICK, *SMALL, *few, "algo=ppo_lagrangian", "algo.total_steps=512", "experiment.curve_points=1")
    usual = built_here(tmp_path / "usual", *arguments)[1].domain.oracle("train")
    run = start_here(tmp_path / "run", *arguments, f"algo.cost_limit={{overtriage: {limit}}}")
    oracle = run.domain.oracle("train")
    assert run.domain.cost_limits == {"undertriage": 0.03, "overtriage": limit}
    assert oracle.references["constrained_optimum"].costs["overtriage"] == pytest.approx(limit) != usual.references["constrained_optimum"].costs["overtriage"]
    assert cautious_prices(oracle, 0.2)["overtriage"] > cautious_prices(usual, 0.2)["overtriage"], "demonstrations are at the prices of these limits"
    start_here(tmp_path / "again", "experiment=evaluate", f"checkpoint={tmp_path / 'run'}", *few)
    first, again = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("run", "again"))
    assert first["costs"]["overtriage"]["limit"] == limit and first["constrained"]["test"]["costs"]["overtriage"]["limit"] == limit
    assert again["constrained"] == first["constrained"] and again["costs"] == first["costs"]
    assert again["references"]["constrained_optimum"] == first["references"]["constrained_optimum"] < usual.references["constrained_optimum"].value


def test_the_multipliers_are_kept(tmp_path: Path) -> None:
    """What `save` writes is what `load` finds; that whole runs go on to the bit is tested in `tests/reliability`."""
    domain, first, second = Risky(), constrained(total_steps=1_024), constrained(total_steps=1_024)
    learned(first, domain, fresh_policy(domain))
    first.save(tmp_path)
    policy = fresh_policy(domain)
    run = Learning(lambda *_: False, 0, torch.device("cpu"), tmp_path, domain.cost_limits)
    second.learn(policy, lambda: domain.make("train"), run)
    assert first.metrics()["price/harm"] == second.metrics()["price/harm"] > 0
