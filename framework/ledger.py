"""What became of gold while another reward was climbed, from when on the two went apart, and what would have given warning.

Gold is what the domain truly pays. A policy that learns from anything else is watched by both: by gold on the validation split, at every
look at it, and by both in the training episodes since. Where gold has fallen from its height while the reward went on rising, the
reward has been exploited (Goodhart's law; Gao et al., 2023, call it over-optimisation).

Signals are what might have told so: the correlation of reward and gold between training episodes, which only a laboratory knows, and what
the reward itself doubts (`RewardModel.doubts`): how far its members disagree (Coste et al., 2024), how far the policy has gone from the
turns that it was fitted to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from framework.statistics import bootstrap, correlation

KEPT = 1_000  # training episodes that a look goes back on: a correlation of them is known to within 0.06
RECENT = 100  # that go into a mean, as many as Stable-Baselines3 averages returns over; the first look waits for so many
Account = Mapping[str, float]
"""Of one training episode: `gold`, what the domain paid; `reward`, what the reward paid; and each of its doubts, a mean over turns."""


def beside_gold(metrics: Mapping[str, float], told: Mapping[str, float], episodes: Sequence[Account]) -> dict[str, float]:
    """What an algorithm tells, with its return called `rollout/reward`, gold and doubts of the same episodes beside it, and what the reward tells of itself."""
    renamed = {"rollout/reward" if name == "rollout/return" else name: value for name, value in metrics.items()}
    means = {name: float(np.mean(values)) for name, values in _columns(episodes[-RECENT:]).items() if name != "reward"}
    gold = {"rollout/gold_return": means.pop("gold")} if episodes else {}
    return renamed | gold | {f"reward/{name}": value for name, value in {**told, **means}.items()}


def entry(env_steps: int, episodes: Sequence[Account]) -> dict[str, Any] | None:
    """One look, as plain data: what the reward paid an episode, and signals by name; None before there are two episodes."""
    if len(episodes) < 2:
        return None
    columns = _columns(episodes)
    gold, paid = columns.pop("gold"), columns.pop("reward")
    signals = {_TOGETHER: correlation(gold, paid), **{name: bootstrap(values) for name, values in columns.items()}}
    return {"env_steps": env_steps, "reward": asdict(bootstrap(paid)), "signals": {name: asdict(found) for name, found in signals.items()}}


def exploited(curve: Sequence[tuple[int, Mapping[str, float]]], ledger: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """From when to when gold fell, its interval clear of that of its height, while the reward rose; None if that did not happen.

    Args:
        curve: steps, and gold on the validation split as an estimate in plain data.
        ledger: entries, in order.

    Returns:
        `since` (steps at the height of gold), `onset` (the first look that shows the fall), `until` (at the end), and `gold` and `reward` at
        `since` and `until`, in plain data.
    """
    since, height = max(curve, key=lambda point: point[1]["mean"])
    last, end = curve[-1]
    after = [look for look in ledger if look["env_steps"] >= since]
    if end["high"] >= height["low"] or len(after) < 2 or after[-1]["reward"]["mean"] <= after[0]["reward"]["mean"]:
        return None
    onset = next(steps for steps, gold in curve if steps > since and gold["high"] < height["low"])
    rise = [after[0]["reward"]["mean"], after[-1]["reward"]["mean"]]
    return {"since": since, "onset": onset, "until": last, "gold": [height["mean"], end["mean"]], "reward": rise}


def warned(ledger: Sequence[Mapping[str, Any]]) -> dict[str, int | None]:
    """At which step each signal first gave warning: with an interval clear of the first look's, of a doubt above it, of a correlation below; None: never."""
    found = dict[str, int | None]()
    for name, first in ledger[0]["signals"].items() if ledger else []:
        clear = [look["env_steps"] for look in ledger[1:] if _worse(name, look["signals"][name], first)]
        found[name] = clear[0] if clear else None
    return found


def told_in_words(climbed: Mapping[str, Any]) -> list[str]:
    """What to say of a run on another reward at its end, a line each."""
    lines = []
    if climbed["ledger"]:
        found = climbed["ledger"][-1]["signals"][_TOGETHER]
        together = f"{found['mean']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
        lines.append(f"Between the last training episodes, the reward and gold have a correlation of {together}.")
    if climbed["exploited"]:
        since, until, gold, reward = (climbed["exploited"][key] for key in ("since", "until", "gold", "reward"))
        rose = f"from step {since:,} to {until:,} it rose from {reward[0]:.3g} to {reward[1]:.3g} in training"
        lines.append(f"warning: the reward was exploited: {rose}, and gold on validation fell from {gold[0]:.3g} to {gold[1]:.3g}")
        lines.append(f"The fall showed at step {climbed['exploited']['onset']:,}; {_of_signals(climbed['warned'])}.")
    elif any(climbed["warned"].values()):
        lines.append(f"No fall of gold was seen; {_of_signals(climbed['warned'])}.")
    return lines


def _of_signals(steps: Mapping[str, int | None]) -> str:
    spoken = [f"{name} at step {step:,}" for name, step in steps.items() if step is not None]
    silent = [name for name, step in steps.items() if step is None]
    if not spoken:
        return "nothing gave warning"
    told = f"warning was given by {', '.join(spoken)}"
    return f"{told}, none by {', '.join(silent)}" if silent else told


def _columns(episodes: Sequence[Account]) -> dict[str, list[float]]:
    return {name: [episode[name] for episode in episodes] for name in episodes[0]} if episodes else {}


def _worse(name: str, now: Mapping[str, float], first: Mapping[str, float]) -> bool:
    return now["high"] < first["low"] if name == _TOGETHER else now["low"] > first["high"]


_TOGETHER = "correlation"
