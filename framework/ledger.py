"""What became of gold while another reward was climbed, and from when on the two went apart.

Gold is what the domain truly pays. A policy that learns from anything else is watched by both: by gold on the validation split, at every
look at it, and by both in the training episodes since. Where gold has fallen from its height while the reward went on rising, the
reward has been exploited (Goodhart's law; Gao et al., 2023, call it over-optimisation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from framework.statistics import bootstrap, correlation

KEPT = 100  # training episodes that are looked back on, as many as Stable-Baselines3 averages returns over
Pair = Sequence[float]  # of one training episode: what the domain paid, and what the reward paid


def beside_gold(metrics: Mapping[str, float], told: Mapping[str, float], episodes: Sequence[Pair]) -> dict[str, float]:
    """What an algorithm tells, with its return called `rollout/reward`, gold of the same episodes beside it, and what the reward tells of itself."""
    renamed = {"rollout/reward" if name == "rollout/return" else name: value for name, value in metrics.items()}
    gold = {"rollout/gold_return": float(np.mean([gold for gold, _ in episodes]))} if episodes else {}
    return renamed | gold | {f"reward/{name}": value for name, value in told.items()}


def entry(env_steps: int, episodes: Sequence[Pair]) -> dict[str, Any] | None:
    """One look, as plain data: what the reward paid an episode, and its correlation with gold over them; None before there are two."""
    if len(episodes) < 2:
        return None
    gold, paid = np.array(episodes, float).T
    return {"env_steps": env_steps, "reward": asdict(bootstrap(paid)), "correlation": asdict(correlation(gold, paid))}


def exploited(curve: Sequence[tuple[int, Mapping[str, float]]], ledger: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """From when to when gold fell, its interval clear of that of its height, while the reward rose; None if that did not happen.

    Args:
        curve: steps, and gold on the validation split as an estimate in plain data.
        ledger: entries, in order.

    Returns:
        `since` (steps at the height of gold), `until` (at the end), and `gold` and `reward` at both, in plain data.
    """
    since, height = max(curve, key=lambda point: point[1]["mean"])
    last, end = curve[-1]
    after = [look for look in ledger if look["env_steps"] >= since]
    if end["high"] >= height["low"] or len(after) < 2 or after[-1]["reward"]["mean"] <= after[0]["reward"]["mean"]:
        return None
    return {"since": since, "until": last, "gold": [height["mean"], end["mean"]], "reward": [after[0]["reward"]["mean"], after[-1]["reward"]["mean"]]}


def told_in_words(climbed: Mapping[str, Any]) -> list[str]:
    """What to say of a run on another reward at its end, a line each."""
    lines = []
    if climbed["ledger"]:
        found = climbed["ledger"][-1]["correlation"]
        together = f"{found['mean']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
        lines.append(f"Between the last training episodes, the reward and gold have a correlation of {together}.")
    if climbed["exploited"]:
        since, until, gold, reward = (climbed["exploited"][key] for key in ("since", "until", "gold", "reward"))
        rose = f"from step {since:,} to {until:,} it rose from {reward[0]:.3g} to {reward[1]:.3g} in training"
        lines.append(f"warning: the reward was exploited: {rose}, and gold on validation fell from {gold[0]:.3g} to {gold[1]:.3g}")
    return lines
