"""Stable-Baselines3 and sb3-contrib on text: `algo=ppo|a2c|trpo|dqn`.

Text stays outside: the policy encodes an observation as line numbers and a mask (`EncodedWorld`), SB3 stores and shuffles those
few integers, and its own loop calls the policy's network through a thin SB3 policy. The mask travels inside the observation
and the network itself gives forbidden acts no chance, so every algorithm here is masked in the same way.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from sb3_contrib import TRPO as Sb3TRPO
from stable_baselines3 import A2C as Sb3A2C
from stable_baselines3 import DQN as Sb3DQN
from stable_baselines3 import PPO as Sb3PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from framework.algorithms import sb3_state
from framework.algorithms.sb3_adapter import EncodedWorld, NetworkActorCritic, NetworkDeepQ, Worlds
from framework.algorithms.tether import Tethered
from framework.config import Count, Fraction, NonNegative, NonNegativeCount, Positive
from framework.errors import TrainingError
from framework.interfaces import Algorithm, Learning, NetworkPolicy, Policy, Progress, World
from framework.worlds.exploration import ExploringStarts


class _Stop(Exception):
    """Leaves SB3's loop between two rollouts."""


class _Boundary(BaseCallback):
    """Between two rollouts and at the end: reports, anneals, stops if told to, and refuses to go on with a number that is none."""

    def __init__(self, algorithm: StableBaselines, progress: Progress) -> None:
        super().__init__()
        self._algorithm, self._progress = algorithm, progress

    def _on_rollout_start(self) -> None:
        if self.num_timesteps % self._algorithm.report_every == 0 and not self._goes_on():
            raise _Stop

    def _on_training_end(self) -> None:
        self._goes_on()

    def _on_step(self) -> bool:
        return True

    def _goes_on(self) -> bool:
        done = self.num_timesteps
        self._algorithm.anneal(self.model, min(1.0, done / max(1, self._algorithm.total_steps)))
        return self._progress(done, self._metrics())

    def _metrics(self) -> dict[str, float]:
        metrics = {name: float(value) for name, value in self.logger.name_to_value.items() if isinstance(value, (int, float, np.number))}
        for name, value in metrics.items():
            if not np.isfinite(value):
                raise TrainingError(f"{name} became {value} at {self.num_timesteps} steps; nothing was saved of it. Try a lower algo.learning_rate")
        if episodes := self.model.ep_info_buffer:
            metrics["rollout/return"] = float(np.mean([episode["r"] for episode in episodes]))
            metrics["rollout/length"] = float(np.mean([episode["l"] for episode in episodes]))
        return metrics | self._algorithm.metrics()


@dataclass(kw_only=True)
class StableBaselines(Algorithm):
    """What the algorithms of SB3 share: vectorised worlds, normalised rewards, schedules, reports, interruption.

    Attributes:
        total_steps: environment steps of a run; 0: the policy is judged as it begins.
        n_envs: worlds stepped together.
        learning_rate: at the start.
        learning_rate_end: at the end, reached linearly; None keeps the first.
        gamma: discount.
        normalize_reward: divide rewards by a running standard deviation of the discounted return.
        exploring_starts: share of episodes that begin with random acts (`framework.worlds.exploration`).
        exploring_acts: how many, at the most.
    """

    improves = NetworkPolicy

    total_steps: NonNegativeCount
    n_envs: Count
    learning_rate: Positive
    learning_rate_end: NonNegative | None
    gamma: Fraction
    normalize_reward: bool
    exploring_starts: Fraction
    exploring_acts: Count

    own: ClassVar[tuple[str, ...]]  # settings that SB3's object takes under the same names
    _model: BaseAlgorithm | None = field(default=None, init=False, repr=False)

    @property
    def report_every(self) -> int:
        """Environment steps between reports; an algorithm with long rollouts reports after each."""
        return 1

    @abstractmethod
    def model(self, venv: VecNormalize, **settings: Any) -> BaseAlgorithm:
        """SB3's own object."""

    def charge(self, venv: VecEnv, run: Learning) -> VecEnv:
        """What the learner is paid by: the worlds themselves, or something that stands before them."""
        return venv

    def anneal(self, model: Any, share: float) -> None:
        """Called between rollouts with the share of the run that is over; for schedules that SB3 does not have."""

    def metrics(self) -> dict[str, float]:
        """What else is worth reporting between rollouts, after `anneal`."""
        return {}

    def learn(self, policy: Policy, make_world: Callable[[], World], run: Learning) -> None:
        """See `Algorithm`."""
        assert isinstance(policy, NetworkPolicy)
        venv = Worlds([lambda: Monitor(EncodedWorld(self._start(make_world()), policy))] * self.n_envs)
        end = self.learning_rate if self.learning_rate_end is None else self.learning_rate_end
        self._model = self.model(
            VecNormalize(self.charge(venv, run), norm_obs=False, norm_reward=self.normalize_reward, gamma=self.gamma),
            learning_rate=lambda remaining: end + remaining * (self.learning_rate - end),
            gamma=self.gamma,
            seed=run.seed,
            device=run.device,
            policy_kwargs={"network": lambda: policy.network},
            **{name: getattr(self, name) for name in self.own},
        )
        self._model.set_logger(Logger(folder=None, output_formats=[]))  # SB3's own would leave an empty folder in the system's temporary one
        if run.resume is not None:
            self.load(run.resume)
        try:
            left = self.total_steps - self._model.num_timesteps
            self._model.learn(left, callback=_Boundary(self, run.progress), log_interval=sys.maxsize, reset_num_timesteps=run.resume is None)
        except _Stop:
            pass
        policy.network.eval()

    def save(self, directory: Path) -> None:
        """See `Algorithm`."""
        assert self._model is not None
        sb3_state.save(self._model, directory)

    def load(self, directory: Path) -> None:
        """Puts a freshly made model where `save` left one."""
        assert self._model is not None
        sb3_state.load(self._model, directory)

    def _start(self, world: World) -> gymnasium.Env[str, int]:
        return ExploringStarts(world, self.exploring_starts, self.exploring_acts) if self.exploring_starts else world


@dataclass(kw_only=True)
class PPO(StableBaselines):
    """Proximal policy optimisation (Schulman et al., 2017), SB3's.

    Args: as SB3 names them; `ent_coef` goes linearly to `ent_coef_end` over the run: exploration first, decision later. For the
    share `critic_warmup` of the run only the critic learns: a policy that starts warm is not to be spoilt by a critic that does not.
    `kl_coef` is the price of going far from where it began, in standard deviations of returns a nat (`framework.algorithms.tether`).
    """

    n_steps: Count
    batch_size: Count
    n_epochs: Count
    gae_lambda: Fraction
    clip_range: Positive
    ent_coef: NonNegative
    ent_coef_end: NonNegative
    vf_coef: NonNegative
    max_grad_norm: Positive
    target_kl: Positive | None
    weight_decay: NonNegative
    critic_warmup: Fraction
    kl_coef: NonNegative

    _tethered: Tethered | None = field(default=None, init=False, repr=False)

    own = ("n_steps", "batch_size", "n_epochs", "gae_lambda", "clip_range", "ent_coef", "vf_coef", "max_grad_norm", "target_kl")

    def __post_init__(self) -> None:
        if (self.n_steps * self.n_envs) % self.batch_size:
            raise ValueError(f"batch_size {self.batch_size} must divide n_steps * n_envs = {self.n_steps * self.n_envs}")

    def model(self, venv: VecNormalize, **settings: Any) -> BaseAlgorithm:
        """See `StableBaselines`."""
        settings["policy_kwargs"] |= {"optimizer_class": torch.optim.AdamW, "optimizer_kwargs": {"eps": 1e-5, "weight_decay": self.weight_decay}}
        self._tethered = Tethered(venv, settings["policy_kwargs"]["network"](), self.kl_coef) if self.kl_coef else None
        return Sb3PPO(NetworkActorCritic, self._tethered or venv, **settings)

    def anneal(self, model: Any, share: float) -> None:
        """Moves the entropy bonus along its schedule, and ends the critic's warm-up."""
        model.policy.network.train_critic_only(share < self.critic_warmup)
        model.ent_coef = self.ent_coef + share * (self.ent_coef_end - self.ent_coef)

    def metrics(self) -> dict[str, float]:
        """See `StableBaselines`."""
        return self._tethered.tell() if self._tethered else {}

    def save(self, directory: Path) -> None:
        """See `Algorithm`."""
        super().save(directory)
        if self._tethered:
            self._tethered.save(directory)

    def load(self, directory: Path) -> None:
        """See `StableBaselines`."""
        super().load(directory)
        if self._tethered:
            self._tethered.load(directory, np.asarray(self._model._last_obs))  # type: ignore[union-attr]


@dataclass(kw_only=True)
class A2C(StableBaselines):
    """Advantage actor-critic (Mnih et al., 2016), SB3's. Args: as SB3 names them."""

    n_steps: Count
    gae_lambda: Fraction
    ent_coef: NonNegative
    vf_coef: NonNegative
    max_grad_norm: Positive

    own = ("n_steps", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm")

    @property
    def report_every(self) -> int:
        """See `StableBaselines`."""
        return _whole_rounds(self.n_steps * self.n_envs)

    def model(self, venv: VecNormalize, **settings: Any) -> BaseAlgorithm:
        """See `StableBaselines`."""
        return Sb3A2C(NetworkActorCritic, venv, use_rms_prop=False, normalize_advantage=True, **settings)


@dataclass(kw_only=True)
class TRPO(StableBaselines):
    """Trust-region policy optimisation (Schulman et al., 2015), sb3-contrib's. Args: as sb3-contrib names them."""

    n_steps: Count
    batch_size: Count
    n_critic_updates: Count
    gae_lambda: Fraction
    target_kl: Positive

    own = ("n_steps", "batch_size", "n_critic_updates", "gae_lambda", "target_kl")

    def model(self, venv: VecNormalize, **settings: Any) -> BaseAlgorithm:
        """See `StableBaselines`."""
        return Sb3TRPO(NetworkActorCritic, venv, **settings)


@dataclass(kw_only=True)
class DQN(StableBaselines):
    """Deep Q-learning (Mnih et al., 2015), SB3's. Args: as SB3 names them.

    The replay buffer is not part of a checkpoint: a resumed run fills a new one.
    """

    buffer_size: Count
    learning_starts: Count
    batch_size: Count
    train_freq: Count
    gradient_steps: Count
    target_update_interval: Count
    exploration_fraction: Fraction
    exploration_final_eps: Fraction
    max_grad_norm: Positive

    own = (
        "buffer_size",
        "learning_starts",
        "batch_size",
        "train_freq",
        "gradient_steps",
        "target_update_interval",
        "exploration_fraction",
        "exploration_final_eps",
        "max_grad_norm",
    )

    @property
    def report_every(self) -> int:
        """See `StableBaselines`."""
        return _whole_rounds(self.n_envs * self.train_freq)

    def model(self, venv: VecNormalize, **settings: Any) -> BaseAlgorithm:
        """See `StableBaselines`."""
        return Sb3DQN(NetworkDeepQ, venv, **settings)


def _whole_rounds(steps: int) -> int:
    """At least 4,096 steps, in whole rounds of so many."""
    return steps * max(1, 4_096 // steps)
