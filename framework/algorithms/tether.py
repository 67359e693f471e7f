"""A price on going far from where a policy began: each act costs a share of how much likelier it has become.

    reward - kl_coef * (log pi(act) - log pi_start(act))

In expectation that is a price on KL(pi || pi_start), paid turn by turn (Jaques et al., 2017, arXiv:1611.02796; Ziegler et al., 2019,
arXiv:1909.08593): what is learnt is the most of the reward that can be had so near the start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from torch import Tensor
from torch.distributions import Categorical

_START = "start.safetensors"


class Tethered(VecEnvWrapper):
    """Worlds that charge for the distance of a policy from its start; the returns that are reported are the worlds' own.

    Args:
        venv: N worlds, whose rewards are in standard deviations of returns.
        network: that acts, with a `twin` that keeps its weights.
        kl_coef: standard deviations a nat.
    """

    def __init__(self, venv: VecEnv, network: Any, kl_coef: float) -> None:
        super().__init__(venv)
        self.network, self.start, self.kl_coef = network, network.twin(), kl_coef
        self.shown = np.empty(0, np.int64)  # to the policy, at present
        self.nats = np.zeros(self.num_envs)  # of the acts under way
        self.total, self.turns = 0.0, 0  # since last told

    def reset(self) -> Any:
        """See SB3."""
        self.shown = np.asarray(self.venv.reset())
        return self.shown

    def step_async(self, actions: np.ndarray) -> None:
        """See SB3."""
        now, before = (_logprobs(network, self.shown, actions) for network in (self.network, self.start))
        self.nats = (now - before).double().cpu().numpy()
        super().step_async(actions)

    def step_wait(self) -> Any:
        """See SB3."""
        self.shown, rewards, dones, infos = self.venv.step_wait()  # type: ignore[assignment]
        self.total, self.turns = self.total + float(self.nats.sum()), self.turns + len(self.nats)
        return self.shown, rewards - (self.kl_coef * self.nats).astype(rewards.dtype), dones, infos

    def tell(self) -> dict[str, float]:
        """Mean nats a turn since this was last asked."""
        mean = {"rollout/kl_a_turn": self.total / self.turns} if self.turns else {}
        self.total, self.turns = 0.0, 0
        return mean

    def save(self, directory: Path) -> None:
        """Writes what the policy was."""
        save_file({name: weight.detach().cpu().contiguous() for name, weight in self.start.head.state_dict().items()}, directory / _START)

    def load(self, directory: Path, shown: np.ndarray) -> None:
        """Restores it; `shown` is what the policy sees at present."""
        self.start.head.load_state_dict(load_file(directory / _START))
        self.shown = shown


@torch.no_grad()
def _logprobs(network: Any, shown: np.ndarray, actions: np.ndarray) -> Tensor:
    scores = network.score(*network.read(torch.as_tensor(shown)))  # the critic is not asked
    return Categorical(logits=scores).log_prob(torch.as_tensor(actions, device=scores.device))
