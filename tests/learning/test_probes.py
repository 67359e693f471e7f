"""Every algorithm learns what can be learned, on worlds so small that the answer is known; each failure points at one thing.

`blind`: one act is better whatever is said, so only the reward has to arrive. `named`: the text names the right act, so text has to
arrive too. `asked`: the answer must be asked for at a price, so later reward has to reach earlier acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.distributions import Categorical

from framework.algorithms.sb3 import StableBaselines
from framework.algorithms.sb3_adapter import EncodedWorld
from framework.algorithms.tether import Tethered
from framework.config import CONF, build
from framework.departure import departure
from framework.evaluation import evaluate
from framework.interfaces import Learning
from framework.lm.tfidf import TfidfEncoder
from framework.oracles.information_state import Test as Question  # under its own name pytest would collect it
from framework.policies.head import HeadPolicy
from framework.rewards.gold import Gold
from framework.rollout import observations
from framework.seeding import seed_everything
from framework.worlds.interview import Interview, InterviewDomain, InterviewWorld

COLOURS = ("red", "green", "blue")
SHADES = {"red": ("scarlet", "crimson"), "green": ("emerald", "olive"), "blue": ("navy", "azure")}


class ProbeWorld(InterviewWorld):
    """Says the colour of the profile at once, and the colour found by a question, each in one of several words."""

    def opening(self, rng: np.random.Generator) -> list[str]:
        said = COLOURS[self.profile] if len(self.interview.prior) > 1 else "nothing"
        return [f"told: {said} {SHADES[said][int(rng.integers(2))]}" if said in SHADES else f"told: {said}"]

    def answer(self, test: int, outcome: int, chance: float) -> list[str]:
        return [f"found: {COLOURS[outcome]} {SHADES[COLOURS[outcome]][int(chance * 2)]}"]


class Probe(InterviewDomain):
    """Three colours, one of which pays; a question that may be worth its price."""

    name, environment = "probe", "Probe"
    cost_limits: Mapping[str, float] = {}

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def interview(self, shifted: bool) -> Interview:
        alike = np.full((3, 3), 1 / 3)
        prior, utilities = {
            "blind": (alike / 3, np.tile([0.0, 1.0, 0.0], (3, 1))),
            "named": (np.eye(3) / 3, np.eye(3)),
            "asked": (alike[:1], np.eye(3) * 2 - 1),
        }[self.kind]
        question = Question("look", 0.1, (np.eye(3) if self.kind == "asked" else alike,))
        return Interview(prior, (question,), COLOURS, utilities, heuristic=lambda outcomes: np.ones(len(outcomes), np.int64))

    def make(self, split: str) -> ProbeWorld:
        return ProbeWorld(self.numbers_of(split))


SMALL: dict[str, dict[str, Any]] = {
    "ppo": {"n_steps": 16, "batch_size": 64, "critic_warmup": 0.0},
    "a2c": {"n_steps": 8},
    "trpo": {"n_steps": 16, "batch_size": 64},
    "dqn": {"buffer_size": 8_192, "learning_starts": 500, "batch_size": 64, "train_freq": 2, "target_update_interval": 200},
}


def algorithm(name: str, **changed: Any) -> StableBaselines:
    """What `algo=name` builds, with settings for a world that is learned in seconds."""
    settings = {"total_steps": 8_192, "n_envs": 16, "learning_rate": 3e-3, "exploring_starts": 0.5, "exploring_acts": 1} | SMALL[name] | changed
    built: StableBaselines = build({**OmegaConf.load(CONF / "algo" / f"{name}.yaml"), **settings}, "algo")
    return built


def fresh_policy(domain: Probe) -> HeadPolicy:
    seed_everything(0)
    policy = HeadPolicy(TfidfEncoder(max_features=50), len(domain.acts), width=32, max_lines=4)
    policy.prepare(list(observations(domain.make("train"), 50)), torch.device("cpu"))
    return policy


def score(policy: HeadPolicy, domain: Probe) -> float:
    found = evaluate(policy, domain, "test", 200).score
    assert found
    return found.mean


def learned(domain: Probe, learner: StableBaselines, policy: HeadPolicy | None = None) -> float:
    policy = policy or fresh_policy(domain)
    learner.learn(policy, lambda: domain.make("train"), Learning(lambda steps, metrics: True, seed=0, device=torch.device("cpu")))
    return score(policy, domain)


@pytest.mark.parametrize("kind", ["named", "asked"])
def test_an_untrained_policy_knows_nothing(kind: str) -> None:
    assert score(fresh_policy(Probe(kind)), Probe(kind)) < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("world", ["blind", "named", "asked"])
@pytest.mark.parametrize("name", SMALL)
def test_an_algorithm_learns(name: str, world: str) -> None:
    assert learned(Probe(world), algorithm(name)) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("changed", [{"exploring_starts": 0.0}, {"exploring_starts": 1.0}, {"critic_warmup": 0.3}, {"normalize_reward": False}], ids=str)
def test_ppo_learns_with(changed: dict[str, Any]) -> None:
    assert learned(Probe("asked"), algorithm("ppo", **changed)) >= 0.95


def cloned(domain: Probe) -> HeadPolicy:
    policy = fresh_policy(domain)
    cloning = build({**OmegaConf.load(CONF / "warm_start" / "cloning.yaml"), "demonstrations": 2_048, "batch_size": 64}, "warm_start")
    cloning.fit(policy, domain.demonstrations("train", seed=0), lambda done, note: None)
    return policy


@pytest.mark.parametrize("world", ["blind", "named", "asked"])
def test_cloning_alone_is_enough(world: str) -> None:
    assert score(cloned(Probe(world)), Probe(world)) >= 0.95


def test_a_warm_policy_is_not_spoilt_while_the_critic_warms_up() -> None:
    """In the critic's time the actor and the reader do not move; cloned acts stay what they were, and the critic learns their worth."""
    domain = Probe("asked")
    policy = cloned(domain)
    before = {name: value.clone() for name, value in policy.network.named_parameters()}
    assert learned(domain, algorithm("ppo", total_steps=1_024, critic_warmup=1.0), policy) >= 0.95
    moved = {name for name, value in policy.network.named_parameters() if not torch.equal(value, before[name])}
    assert moved and all(".critic." in name for name in moved), moved


@pytest.mark.slow
def test_a_tether_keeps_the_policy_near_its_start() -> None:
    """The more a nat costs, the less of the optimum is learnt; the best policy within the price is known: proportional to start * exp(return / price)."""
    reached = []
    for price in (0.0, 0.3, 30.0):
        domain, policy = Probe("named"), fresh_policy(Probe("named"))
        start = policy.snapshot()
        learner = algorithm("ppo", kl_coef=price)
        reached.append((learned(domain, learner, policy), departure(policy, start, domain, Gold(), 500)["kl"]))
    (free, far), (some, nearer), (held, near) = reached
    assert free >= 0.95 and held < 0.6 and some > held
    assert far > nearer > near >= 0 and near < 0.05


def test_a_tether_charges_for_what_became_likelier() -> None:
    """By hand, an act that is e times likelier than at the start costs a nat; what is reported are mean nats a turn, once."""
    domain, policy = Probe("named"), fresh_policy(Probe("named"))

    def make() -> Any:
        return EncodedWorld(domain.make("train"), policy)

    worlds, plain = Tethered(DummyVecEnv([make] * 3), policy.network, kl_coef=0.5), DummyVecEnv([make] * 3)
    worlds.seed(0)
    plain.seed(0)
    plain.reset()
    with torch.no_grad():
        shown = torch.as_tensor(worlds.reset())
        before = Categorical(logits=policy.network(shown)[0])
        list(policy.network.head.actor.parameters())[-1].add_(torch.arange(float(len(domain.acts))))
        now = Categorical(logits=policy.network(shown)[0])
        acts = torch.tensor([0, 1, 2])
        _, rewards, _, _ = worlds.step(acts.numpy())
    nats = (now.log_prob(acts) - before.log_prob(acts)).numpy()
    np.testing.assert_allclose(rewards, plain.step(acts.numpy())[1] - 0.5 * nats, rtol=1e-5)
    assert worlds.tell() == {"rollout/kl_a_turn": pytest.approx(nats.mean())} and worlds.tell() == {}


@pytest.mark.slow
def test_the_critic_learns_what_a_situation_is_worth() -> None:
    domain = Probe("asked")
    policy = cloned(domain)
    learned(domain, algorithm("ppo", total_steps=4_096, critic_warmup=1.0, normalize_reward=False, exploring_starts=0.0), policy)
    world = domain.make("validation")
    text, info = world.reset(seed=0)
    after, _, _, _, told = world.step(0)
    encoded = torch.as_tensor(policy.encode([text, after], np.stack([info["action_mask"], told["action_mask"]])))
    values = policy.network(encoded)[1].tolist()
    assert values == pytest.approx([0.9, 1.0], abs=0.1)  # the answer pays 1 and the look costs 0.1
