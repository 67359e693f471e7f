"""How far a policy has gone: against distributions whose divergence is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import Categorical

from framework.config import load_domain
from framework.departure import departure
from framework.interfaces import Policy
from framework.lm.tfidf import TfidfEncoder
from framework.policies.head import HeadPolicy
from framework.rewards.gold import Gold
from framework.types import ActionEvaluation, Ints, Observations


class Leaning(Policy):
    """Draws among allowed acts, those of higher number likelier by a lean; notes what its acts are likely by."""

    def __init__(self, lean: float) -> None:
        self.lean, self.met = lean, list[torch.Tensor]()

    def chances(self, observations: Observations) -> Categorical:
        masks = torch.as_tensor(observations.masks)
        return Categorical(logits=(self.lean * torch.arange(masks.shape[1], dtype=torch.float64)).expand(masks.shape).masked_fill(~masks, -torch.inf))

    def act(self, observations: Observations, deterministic: bool = False) -> Ints:
        self.met.append(torch.as_tensor(observations.masks))
        return np.asarray(self.chances(observations).sample().numpy())

    def evaluate(self, observations: Observations, actions: Ints) -> ActionEvaluation:
        chances = self.chances(observations)
        return ActionEvaluation(chances.log_prob(torch.as_tensor(actions)), torch.zeros(len(actions)), torch.zeros(len(actions)))


@pytest.mark.slow
def test_the_divergence_is_that_of_the_acts_summed_over_an_episode() -> None:
    domain, policy, start = load_domain("finance", "SuitabilityDesk"), Leaning(0.3), Leaning(0.1)
    found = departure(policy, start, domain, Gold(), 2_000)
    exact = 0.0
    for masks in policy.met:
        chances = [player.chances(Observations([""] * len(masks), masks.numpy(), np.empty(0, np.int64))) for player in (policy, start)]
        exact += float((chances[0].probs * (chances[0].logits - chances[1].logits).where(masks, 0.0)).sum())
    assert found["kl"] == pytest.approx(exact / 2_000, rel=0.08)
    played = [found[name] for name in ("gold", "reward")]
    assert all(estimate["low"] < estimate["mean"] < estimate["high"] for estimate in played)
    luck = played[1]["high"] - played[1]["low"]
    assert played[0]["mean"] == pytest.approx(played[1]["mean"], abs=2 * luck), "gold is what the world's own reward pays, less luck"
    assert departure(policy, policy, domain, Gold(), 20)["kl"] == 0.0


def test_a_snapshot_stays_as_the_policy_was() -> None:
    domain = load_domain("finance", "SuitabilityDesk")
    policy = HeadPolicy(TfidfEncoder(32), len(domain.acts))
    world = domain.make("train")
    text, info = world.reset(seed=0)
    policy.prepare([text], torch.device("cpu"))
    seen = Observations([text], info["action_mask"][None], np.array([world.information_state()]))
    act = policy.act(seen, deterministic=True)
    kept, before = policy.snapshot(), policy.evaluate(seen, act).logprobs.item()
    with torch.no_grad():
        for parameter in policy.network.head.parameters():
            parameter += torch.randn_like(parameter)
    assert kept.evaluate(seen, act).logprobs.item() == before != policy.evaluate(seen, act).logprobs.item()
    with pytest.raises(TypeError, match="keeps no copy"):
        Leaning(0.0).snapshot()
