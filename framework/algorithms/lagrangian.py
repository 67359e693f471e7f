"""Safety costs as constraints: `algo=ppo_lagrangian`.

    maximise over pi, minimise over lambda >= 0:    J(pi) - sum_k lambda_k (C_k(pi) - limit_k)

PPO climbs in pi on the reward less the price of its costs; after each rollout the multipliers climb on how far its episodes went
over the limits (Altman, 1999; Ray, Achiam and Amodei, Benchmarking safe exploration, 2019). The worlds keep reward and costs
apart: prices are charged between them and the learner, and the returns that are reported are the worlds' own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from framework.algorithms.sb3 import PPO
from framework.config import NonNegative, Positive
from framework.interfaces import Learning
from framework.types import Floats

_PLAIN = "multipliers.json"
_STRICTEST = 0.01  # a limit below one violation in a hundred episodes does not speed its multiplier up further


def dual_ascent(multipliers: Floats, costs: Floats, limits: Floats, rate: float) -> Floats:
    """lambda <- max(0, lambda + rate * (cost - limit) / limit), for K costs an episode, each `[K]`.

    The excess is taken as a share of the limit (of 0.01, if the limit is less), so that one rate serves rare violations and common ones.
    """
    return np.maximum(0.0, multipliers + rate * (costs - limits) / np.maximum(limits, _STRICTEST))


class Charged(VecEnvWrapper):
    """Worlds whose reward is charged for costs, and an account of what whole episodes earned and cost.

    Episodes that chance began (`framework.worlds.exploration`) are charged like the others, and not counted: what was done in them is not
    the policy's alone.

    Args:
        venv: N worlds that tell `costs`.
        names: of the K costs that have a price.
    """

    def __init__(self, venv: VecEnv, names: Sequence[str]) -> None:
        super().__init__(venv)
        self.names = tuple(names)
        self.prices = np.zeros(len(self.names))
        self.running = np.zeros((self.num_envs, len(self.names)))  # of the episodes under way
        self.counted = np.ones(self.num_envs, bool)
        self.finished: list[list[float]] = []  # of each episode since it was last emptied: return, then costs

    def reset(self) -> Any:
        """See SB3."""
        shown = self.venv.reset()
        self.running[:] = 0.0
        self.counted = np.array([not told.get("explored") for told in self.venv.reset_infos])
        return shown

    def step_wait(self) -> Any:
        """See SB3."""
        shown, rewards, dones, infos = self.venv.step_wait()
        costs = np.array([[info.get("costs", {}).get(name, 0.0) for name in self.names] for info in infos])
        self.running += costs
        for seat in np.flatnonzero(dones):
            if self.counted[seat]:
                self.finished.append([float(infos[seat]["episode"]["r"]), *self.running[seat].tolist()])
            self.running[seat], self.counted[seat] = 0.0, not self.venv.reset_infos[seat].get("explored")
        return shown, rewards - (costs @ self.prices).astype(rewards.dtype), dones, infos


@dataclass(kw_only=True)
class PPOLagrangian(PPO):
    """PPO within the limits on expected costs an episode that the domain sets.

    Multipliers are in units of the standard deviation of the return of the first rollout's episodes, so that they mean the same in
    every world. While only the critic learns they stay as they are.

    Args: as for `PPO`, and
        multiplier_start: at the start, of every cost.
        multiplier_rate: of dual ascent, a rollout (see `dual_ascent`).
        cost_limit: in place of the domain's own limits, by the name of a cost, or a number where there is just one; None: the domain's own. They are
            put in their place before the domain is built (`framework.constrained.within_limits`), and come to `learn` from there.
    """

    multiplier_start: NonNegative
    multiplier_rate: Positive
    cost_limit: NonNegative | dict[str, NonNegative] | None

    constrained = True
    _charged: Charged | None = field(default=None, init=False, repr=False)
    _multipliers: Floats = field(default_factory=lambda: np.zeros(0), init=False, repr=False)
    _limits: Floats = field(default_factory=lambda: np.zeros(0), init=False, repr=False)
    _scale: float | None = field(default=None, init=False, repr=False)  # of returns
    _told: Mapping[str, float] = field(default_factory=dict, init=False, repr=False)

    def charge(self, venv: VecEnv, run: Learning) -> VecEnv:
        """See `StableBaselines`."""
        self._charged, self._scale = Charged(venv, list(run.cost_limits)), None
        self._limits = np.array(list(run.cost_limits.values()))
        self._multipliers = np.full(len(self._limits), self.multiplier_start)
        return self._charged

    def anneal(self, model: Any, share: float) -> None:
        """PPO's schedules, then a step of dual ascent on the episodes since the last one."""
        super().anneal(model, share)
        assert self._charged is not None
        self._told = {}
        if not self._charged.finished:  # also where a resumed run looks once more at the step it goes on from
            return
        returns, costs = np.split(np.array(self._charged.finished), [1], axis=1)
        self._charged.finished.clear()
        self._scale = self._scale or float(returns.std()) or 1.0
        if share >= self.critic_warmup:
            self._multipliers = dual_ascent(self._multipliers, costs.mean(axis=0), self._limits, self.multiplier_rate)
        self._charged.prices = self._multipliers * self._scale
        self._told = dict(zip((f"rollout/cost/{name}" for name in self._charged.names), costs.mean(axis=0).tolist(), strict=True))

    def metrics(self) -> dict[str, float]:
        """Mean costs of the last rollout's episodes, and the prices they led to, in the world's unit."""
        assert self._charged is not None
        return {
            **super().metrics(),
            **self._told,
            **{f"price/{name}": float(price) for name, price in zip(self._charged.names, self._charged.prices, strict=True)},
        }

    def save(self, directory: Path) -> None:
        """See `Algorithm`."""
        super().save(directory)
        assert self._charged is not None
        account = {name: getattr(self._charged, name) for name in ("prices", "running", "counted")}
        plain = {"multipliers": self._multipliers, **account}
        kept = {name: value.tolist() for name, value in plain.items()} | {"finished": self._charged.finished, "scale": self._scale}
        (directory / _PLAIN).write_text(json.dumps(kept), encoding="utf-8")

    def load(self, directory: Path) -> None:
        """See `StableBaselines`."""
        super().load(directory)
        assert self._charged is not None
        plain = json.loads((directory / _PLAIN).read_text(encoding="utf-8"))
        self._multipliers, self._scale, self._charged.finished = np.array(plain["multipliers"]), plain["scale"], plain["finished"]
        for name in ("prices", "running", "counted"):
            setattr(self._charged, name, np.array(plain[name]))
