"""Proximal policy optimisation in words, with a critic over turns: `algo=ppo_text`.

Credit goes turn by turn: the critic values what is shown before a turn, from the language model's own state at the end of the
prompt, and generalised advantage estimation runs over the turns of an episode. Inside a turn every token has the turn's
advantage and a clipped ratio of its own. Old log-probabilities are those that the tokens were sampled with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from framework.advantages import gae, whiten
from framework.algorithms.policy_gradient import PolicyGradient
from framework.algorithms.turns import Batch, play
from framework.config import Count, Fraction, NonNegative, Positive
from framework.interfaces import Learning, Policy, SpeakingPolicy, World
from framework.losses import clipped_value, k3, mean_of_tokens, ppo


@dataclass(kw_only=True)
class TextPPO(PolicyGradient):
    """PPO (Schulman et al., 2017; on language models: Ziegler et al., 2019), one clock tick a turn.

    Rewards are divided by a running standard deviation of the episodes' returns, so that settings mean the same in every world.

    Attributes:
        n_episodes: of a batch.
        batch_size: turns an update, at the most.
        n_epochs: how often each turn is learnt from.
        gamma: discount from turn to turn.
        gae_lambda: how far to trust rewards over the critic.
        clip_range: how far a ratio may move before it counts no further; for values, in standard deviations of returns.
        vf_coef: weight of the critic's loss, whose gradient reaches the language model too.
        critic_warmup: share of the run in which only the critic learns, on states that stay as they are.
        target_kl: nats a draw between the policy that sampled and the one that learns, at 1.5 times which a batch is left; null: never.
    """

    n_episodes: Count
    batch_size: Count
    n_epochs: Count
    gamma: Fraction
    gae_lambda: Fraction
    clip_range: Positive
    vf_coef: NonNegative
    critic_warmup: Fraction
    target_kl: Positive | None

    def learn(self, policy: Policy, make_world: Callable[[], World], run: Learning) -> None:
        """See `Algorithm`."""
        assert isinstance(policy, SpeakingPolicy)
        self.begin(policy, run)
        worlds = [make_world() for _ in range(self.n_episodes)]
        while self.goes_on(run):
            batch = Batch.of(play(policy, worlds, self.seeds(run.seed, self.n_episodes)), run.device)
            states = policy.states([said.observation for said in batch.said])
            rewards = (batch.rewards - self.price(batch, self.reference(policy, batch))) / self.deviation(batch)
            values = policy.critic(states)[:, 0].detach()
            advantages = self.advantages(batch, rewards, values)
            returns = advantages + values
            if self.steps < self.critic_warmup * self.total_steps:
                self.warm_up(policy, states, returns, values)
            else:
                self.improve(policy, batch, whiten(advantages), returns, values)
            self.account(batch, {"train/explained_variance": _explained(values, returns)})

    def improve(self, policy: SpeakingPolicy, batch: Batch, advantages: Tensor, returns: Tensor, values: Tensor) -> None:
        """Learns from a batch, in minibatches; advantages, returns and old values are of turns, `[B]`."""
        for said, draws in batch.minibatches(self.batch_size, self.n_epochs):
            weights, numbers = mean_of_tokens(batch.turns[draws]), batch.turns[draws].unique_consecutive()
            kl = 0.0
            for part in policy.score(said):
                at, turns = draws[part.draws], numbers[part.examples]
                terms = ppo(part.logprobs, batch.logprobs[at], advantages[batch.turns[at]], self.clip_range, self.clip_range)
                errors = clipped_value(policy.critic(part.states)[:, 0], values[turns], returns[turns], self.clip_range)
                loss = weights[part.draws] @ terms + self.vf_coef * errors.sum() / len(said)
                loss.backward()
                self.watch(part, batch.logprobs[at], loss)
                kl += float(weights[part.draws] @ k3(batch.logprobs[at], part.logprobs.detach()))
            if self.target_kl is not None and kl > 1.5 * self.target_kl:
                self.forget()
                return
            self.update()

    def warm_up(self, policy: SpeakingPolicy, states: Tensor, returns: Tensor, values: Tensor) -> None:
        """Teaches the critic alone."""
        for rows in (rows for _ in range(self.n_epochs) for rows in torch.randperm(len(states), device="cpu").to(states.device).split(self.batch_size)):
            loss = clipped_value(policy.critic(states[rows])[:, 0], values[rows], returns[rows], self.clip_range).mean()
            loss.backward()
            self.update()

    def advantages(self, batch: Batch, rewards: Tensor, values: Tensor) -> Tensor:
        """By GAE over the turns of each episode, `[B]` from `[B]` each."""
        table, mask = batch.by_episode(rewards)
        return gae(table, batch.by_episode(values)[0], mask, self.gamma, self.gae_lambda)[mask]

    def deviation(self, batch: Batch) -> float:
        """Standard deviation of all episodes' returns so far; 1 while they do not differ."""
        count, mean, squares = self._counters.get("returns", (0, 0.0, 0.0))
        for total in batch.totals.tolist():
            count, before = count + 1, mean
            mean += (total - mean) / count
            squares += (total - before) * (total - mean)
        self._counters["returns"] = [count, mean, squares]
        return float((squares / count) ** 0.5) or 1.0


def _explained(values: Tensor, returns: Tensor) -> float:
    """Share of the variance of returns; 1 where there is none."""
    variance = float(returns.var())
    return 1 - float((returns - values).var()) / variance if variance > 1e-6 else 1.0
