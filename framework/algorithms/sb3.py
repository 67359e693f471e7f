"""Stable-Baselines3 and sb3-contrib on text: `algo=ppo|a2c|trpo|dqn`.

Text stays outside: the policy encodes an observation as line numbers and a mask (`EncodedWorld`), SB3 stores and shuffles those
few integers, and its own loop calls the policy's network through a thin SB3 policy. The mask travels inside the observation
and the network itself gives forbidden acts no chance, so every algorithm here is masked in the same way.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from sb3_contrib import TRPO as Sb3TRPO
from stable_baselines3 import A2C as Sb3A2C
from stable_baselines3 import DQN as Sb3DQN
from stable_baselines3 import PPO as Sb3PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from framework.algorithms import sb3_state
from framework.algorithms.networks import network_policy
from framework.algorithms.sb3_adapter import EncodedWorld, NetworkActorCritic, NetworkDeepQ
from framework.config import Count, Fraction, NonNegative, Positive
from framework.errors import TrainingError
from framework.exploration import ExploringStarts
from framework.interfaces import Algorithm, Learning, Policy, Progress, World


class _Stop(Exception):
    """Leaves SB3's loop between two rollouts."""


class _Boundary(BaseCallback):
    """Between two rollouts: reports, anneals, stops if told to, and refuses to go on with a number that is none."""

    def __init__(self, algorithm: StableBaselines, progress: Progress) -> None:
        super().__init__()
        self._algorithm, self._progress = algorithm, progress

    def _on_rollout_start(self) -> None:
        done = self.num_timesteps
        if done % self._algorithm.report_every:
            return
        self._algorithm.anneal(self.model, min(1.0, done / self._algorithm.total_steps))
        if not self._progress(done, self._metrics()):
            raise _Stop

    def _on_step(self) -> bool:
        return True

    def _metrics(self) -> dict[str, float]:
        metrics = {name: float(value) for name, value in self.logger.name_to_value.items() if isinstance(value, (int, float, np.number))}
        for name, value in metrics.items():
            if not np.isfinite(value):
                raise TrainingError(f"{name} became {value} at {self.num_timesteps} steps; nothing was saved of it. Try a lower algo.learning_rate")
        if episodes := self.model.ep_info_buffer:
            metrics["rollout/return"] = float(np.mean([episode["r"] for episode in episodes]))
            metrics["rollout/length"] = float(np.mean([episode["l"] for episode in episodes]))
        return metrics


class StableBaselines(Algorithm):
    """What the algorithms of SB3 share: vectorised worlds, normalised rewards, schedules, reports, interruption.

    Args:
        total_steps: environment steps of a run.
        n_envs: worlds stepped together.
        learning_rate: at the start.
        learning_rate_end: at the end, reached linearly; None keeps the first.
        gamma: discount.
        normalize_reward: divide rewards by a running standard deviation of the discounted return.
        exploring_starts: share of episodes that begin with random acts (`framework.exploration`).
        exploring_acts: how many, at the most.
    """

    report_every = 1  # steps between reports; an algorithm with rollouts reports after each

    def __init__(
        self,
        total_steps: Count,
        n_envs: Count,
        learning_rate: Positive,
        learning_rate_end: NonNegative | None,
        gamma: Fraction,
        normalize_reward: bool,
        exploring_starts: Fraction,
        exploring_acts: Count,
    ) -> None:
        self.total_steps, self.n_envs, self.gamma, self.normalize_reward = total_steps, n_envs, gamma, normalize_reward
        self.learning_rate, self.learning_rate_end = learning_rate, learning_rate if learning_rate_end is None else learning_rate_end
        self.exploring_starts, self.exploring_acts = exploring_starts, exploring_acts
        self._model: BaseAlgorithm | None = None

    @abstractmethod
    def model(self, venv: VecNormalize, **shared: Any) -> BaseAlgorithm:
        """SB3's own object, given what all of them take."""

    def anneal(self, model: Any, share: float) -> None:
        """Called between rollouts with the share of the run that is over; for schedules that SB3 does not have."""

    def learn(self, policy: Policy, make_world: Callable[[], World], run: Learning) -> None:
        """See `Algorithm`."""
        learner = network_policy(policy, "algo")
        venv = DummyVecEnv([lambda: Monitor(EncodedWorld(self._start(make_world()), learner))] * self.n_envs)
        self._model = self.model(
            VecNormalize(venv, norm_obs=False, norm_reward=self.normalize_reward, gamma=self.gamma),
            learning_rate=lambda remaining: self.learning_rate_end + remaining * (self.learning_rate - self.learning_rate_end),
            gamma=self.gamma,
            seed=run.seed,
            device=run.device,
            policy_kwargs={"network": lambda: learner.network},
        )
        if run.resume is not None:
            sb3_state.load(self._model, run.resume)
        try:
            left = self.total_steps - self._model.num_timesteps
            self._model.learn(left, callback=_Boundary(self, run.progress), log_interval=sys.maxsize, reset_num_timesteps=run.resume is None)
        except _Stop:
            pass
        learner.network.eval()

    def save(self, directory: Path) -> None:
        """See `Algorithm`."""
        assert self._model is not None
        sb3_state.save(self._model, directory)

    def _start(self, world: World) -> gymnasium.Env[str, int]:
        return ExploringStarts(world, self.exploring_starts, self.exploring_acts) if self.exploring_starts else world


class PPO(StableBaselines):
    """Proximal policy optimisation (Schulman et al., 2017), SB3's.

    Args: as SB3 names them; `ent_coef` goes linearly to `ent_coef_end` over the run: exploration first, decision later. For the
    share `critic_warmup` of the run only the critic learns: a policy that starts warm is not to be spoilt by a critic that does not.
    """

    def __init__(
        self,
        total_steps: Count,
        n_envs: Count,
        n_steps: Count,
        batch_size: Count,
        n_epochs: Count,
        learning_rate: Positive,
        learning_rate_end: NonNegative | None,
        gamma: Fraction,
        gae_lambda: Fraction,
        clip_range: Positive,
        ent_coef: NonNegative,
        ent_coef_end: NonNegative,
        vf_coef: NonNegative,
        max_grad_norm: Positive,
        target_kl: Positive | None,
        normalize_reward: bool,
        weight_decay: NonNegative,
        exploring_starts: Fraction,
        exploring_acts: Count,
        critic_warmup: Fraction,
    ) -> None:
        super().__init__(total_steps, n_envs, learning_rate, learning_rate_end, gamma, normalize_reward, exploring_starts, exploring_acts)
        self.critic_warmup = critic_warmup
        if (n_steps * n_envs) % batch_size:
            raise ValueError(f"batch_size {batch_size} must divide n_steps * n_envs = {n_steps * n_envs}")
        self.ent_coef, self.ent_coef_end, self.weight_decay = ent_coef, ent_coef_end, weight_decay
        self._settings: dict[str, Any] = {
            "n_steps": n_steps, "batch_size": batch_size, "n_epochs": n_epochs, "gae_lambda": gae_lambda, "clip_range": clip_range,
            "ent_coef": ent_coef, "vf_coef": vf_coef, "max_grad_norm": max_grad_norm, "target_kl": target_kl,
        }  # fmt: skip

    def model(self, venv: VecNormalize, **shared: Any) -> BaseAlgorithm:
        """See `StableBaselines`."""
        shared["policy_kwargs"] |= {"optimizer_class": torch.optim.AdamW, "optimizer_kwargs": {"eps": 1e-5, "weight_decay": self.weight_decay}}
        return Sb3PPO(NetworkActorCritic, venv, **self._settings, **shared)

    def anneal(self, model: Any, share: float) -> None:
        """Moves the entropy bonus along its schedule, and ends the critic's warm-up."""
        model.policy.network.train_critic_only(share < self.critic_warmup)
        model.ent_coef = self.ent_coef + share * (self.ent_coef_end - self.ent_coef)


class A2C(StableBaselines):
    """Advantage actor-critic (Mnih et al., 2016), SB3's. Args: as SB3 names them."""

    def __init__(
        self,
        total_steps: Count,
        n_envs: Count,
        n_steps: Count,
        learning_rate: Positive,
        learning_rate_end: NonNegative | None,
        gamma: Fraction,
        gae_lambda: Fraction,
        ent_coef: NonNegative,
        vf_coef: NonNegative,
        max_grad_norm: Positive,
        normalize_reward: bool,
        exploring_starts: Fraction,
        exploring_acts: Count,
    ) -> None:
        super().__init__(total_steps, n_envs, learning_rate, learning_rate_end, gamma, normalize_reward, exploring_starts, exploring_acts)
        self.report_every = n_steps * n_envs * max(1, 4_096 // (n_steps * n_envs))
        self._settings: dict[str, Any] = {
            "n_steps": n_steps,
            "gae_lambda": gae_lambda,
            "ent_coef": ent_coef,
            "vf_coef": vf_coef,
            "max_grad_norm": max_grad_norm,
        }

    def model(self, venv: VecNormalize, **shared: Any) -> BaseAlgorithm:
        """See `StableBaselines`."""
        return Sb3A2C(NetworkActorCritic, venv, use_rms_prop=False, normalize_advantage=True, **self._settings, **shared)


class TRPO(StableBaselines):
    """Trust-region policy optimisation (Schulman et al., 2015), sb3-contrib's. Args: as sb3-contrib names them."""

    def __init__(
        self,
        total_steps: Count,
        n_envs: Count,
        n_steps: Count,
        batch_size: Count,
        n_critic_updates: Count,
        learning_rate: Positive,
        learning_rate_end: NonNegative | None,
        gamma: Fraction,
        gae_lambda: Fraction,
        target_kl: Positive,
        normalize_reward: bool,
        exploring_starts: Fraction,
        exploring_acts: Count,
    ) -> None:
        super().__init__(total_steps, n_envs, learning_rate, learning_rate_end, gamma, normalize_reward, exploring_starts, exploring_acts)
        self._settings: dict[str, Any] = {
            "n_steps": n_steps, "batch_size": batch_size, "n_critic_updates": n_critic_updates, "gae_lambda": gae_lambda, "target_kl": target_kl,
        }  # fmt: skip

    def model(self, venv: VecNormalize, **shared: Any) -> BaseAlgorithm:
        """See `StableBaselines`."""
        return Sb3TRPO(NetworkActorCritic, venv, **self._settings, **shared)


class DQN(StableBaselines):
    """Deep Q-learning (Mnih et al., 2015), SB3's. Args: as SB3 names them.

    The replay buffer is not part of a checkpoint: a resumed run fills a new one.
    """

    def __init__(
        self,
        total_steps: Count,
        n_envs: Count,
        buffer_size: Count,
        learning_starts: Count,
        batch_size: Count,
        train_freq: Count,
        gradient_steps: Count,
        target_update_interval: Count,
        exploration_fraction: Fraction,
        exploration_final_eps: Fraction,
        learning_rate: Positive,
        learning_rate_end: NonNegative | None,
        gamma: Fraction,
        max_grad_norm: Positive,
        normalize_reward: bool,
        exploring_starts: Fraction,
        exploring_acts: Count,
    ) -> None:
        super().__init__(total_steps, n_envs, learning_rate, learning_rate_end, gamma, normalize_reward, exploring_starts, exploring_acts)
        self.report_every = n_envs * train_freq * max(1, 4_096 // (n_envs * train_freq))
        self._settings: dict[str, Any] = {
            "buffer_size": buffer_size, "learning_starts": learning_starts, "batch_size": batch_size, "train_freq": train_freq,
            "gradient_steps": gradient_steps, "target_update_interval": target_update_interval, "max_grad_norm": max_grad_norm,
            "exploration_fraction": exploration_fraction, "exploration_final_eps": exploration_final_eps,
        }  # fmt: skip

    def model(self, venv: VecNormalize, **shared: Any) -> BaseAlgorithm:
        """See `StableBaselines`."""
        return Sb3DQN(NetworkDeepQ, venv, **self._settings, **shared)
