"""A reward is fitted to preferences, watched on the validation pairs and judged on the test pairs: `experiment=fit_reward data=preferences`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from framework.checkpoint import open_checkpoint, save_checkpoint
from framework.config import Count, NonNegativeCount
from framework.errors import ConfigError
from framework.experiment import Experiment, Run, write_json
from framework.interfaces import Algorithm, Learning, PreferenceSource, Tuning
from framework.lm.encoder import LineEncoder
from framework.preferences.agreement import Truth, agreement, best_of, hits, label_losses
from framework.preferences.fitted_reward import FittedReward
from framework.preferences.teachers import words
from framework.preferences.trajectories import score_trajectories, turns_of
from framework.preferences.turn_reward import TurnReward, described
from framework.progress import progress
from framework.reports.plots import fit_picture
from framework.reports.report import write_page
from framework.reports.reward_summary import print_fit
from framework.statistics import bootstrap
from framework.types import Estimate, Floats, Preference, Step

_SIZES = (1, 2, 4, 8, 16, 32, 64)
_GOLD = ("chosen_gold", "rejected_gold")  # columns that tell the gold of each side, where a file has them


class FitReward(Experiment):
    """Leaves the reward in the run's folder, from where `reward.path=DIR` takes it; beside it stand controls that everyone must beat.

    Args:
        curve_points: looks at the validation pairs.
        patience: looks without a lower validation loss after which the fit stops early; 0 never does.
        controls: other readers, by name, on which the same reward is fitted for comparison; None: none.
        plain: what is fitted on them where the reward itself is none that reads lines.
        subset: column of the data by which accuracy is told apart, where rows have it.
        apart: a subset that nothing else is measured by: pairs that are meant to deceive.
    """

    def __init__(
        self, curve_points: Count, patience: NonNegativeCount, controls: dict[str, LineEncoder] | None, plain: TurnReward, subset: str, apart: str
    ) -> None:
        self.curve_points, self.patience, self.controls, self.plain = curve_points, patience, controls or {}, plain
        self.subset, self.apart = subset, apart

    def needs(self, algorithm: Algorithm | Tuning) -> Mapping[str, type]:
        """See `Experiment`."""
        return {"data": PreferenceSource, "lm": object, "reward": FittedReward}  # which lm goes with it, the reward says

    def run(self, run: Run) -> bool:
        """See `Experiment`."""
        start = time.monotonic()
        pairs = {split: self._pairs(run, split) for split in ("train", "validation", "test")}
        reward: FittedReward = run.parts["reward"]
        of, reader = (reward, reward.reader) if isinstance(reward, TurnReward) else (self.plain, None)
        curve, record = self._fit(run, reward, pairs, run.directory / "checkpoint", "fit")
        controls = {name: of.on(other) for name, other in self.controls.items() if reader is None or described(other) != described(reader)}
        for name, control in controls.items():
            with TemporaryDirectory() as kept:
                self._fit(run, control, pairs, Path(kept) / "checkpoint", f"fit on {name}")
        summary = {
            **run.identity,
            "pairs": {split: len(self._measured(found)) for split, found in pairs.items()},
            **record,
            **{split: self._judge(reward, pairs[split]) for split in ("test", "validation")},
            "controls": {name: self._judge(control, pairs["test"]) for name, control in controls.items()} | _by_length(self._measured(pairs["test"])),
            "warnings": list(run.preferences.warnings()),
            "wall_s": round(time.monotonic() - start, 1),
        }
        title = f"{run.preferences.name}, {summary['reward']}, lm={summary['lm']} ({summary['adapter']}), seed {summary['seed']}"
        write_json(run.directory / "summary.json", summary)
        fit_picture(*curve, record["best"][0], summary["test"]["reliability"], title, run.directory / "learning_curve.png")
        write_page("reward.html", run.directory, title, summary=summary)
        run.tracker.log({f"final/{name}": value for name, value in _numbers(summary["test"]).items()}, record["updates"])
        print_fit(summary, title, run.directory, None if reader is None else summary["lm"])
        return True

    def _pairs(self, run: Run, split: str) -> Sequence[Preference]:
        pairs = run.preferences.preferences(split)
        if not any(pair.label != 0.5 for pair in pairs):
            raise ConfigError("data", f"{run.preferences.name} leaves no pair for the split {split} that is no tie; give more rows")
        return pairs

    def _fit(
        self, run: Run, reward: FittedReward, pairs: Mapping[str, Sequence[Preference]], place: Path, title: str
    ) -> tuple[tuple[list[tuple[int, float]], list[tuple[int, Estimate]]], dict[str, Any]]:
        """Fits, and leaves the reward as it was when its validation loss was least; returns losses by updates, and what came of it."""
        total, labels = reward.steps(len(pairs["train"])), Truth.of(pairs["validation"]).labels
        every = max(1, total // self.curve_points)
        training, looks, recent = list[tuple[int, float]](), list[tuple[int, Estimate]](), list[float]()
        record: dict[str, Any] = {"updates": 0, "best": None, "stopped": ""}
        with progress(f"{title}, {total:,} updates", total) as tell:

            def between_updates(updates: int, metrics: Mapping[str, float]) -> bool:
                record["updates"] = updates
                recent.append(metrics["train/loss"])
                tell(updates, f"loss {metrics['train/loss']:.3f}")
                if updates % every and updates < total:
                    return True
                loss = bootstrap(label_losses(_ahead(reward, pairs["validation"]), labels))
                training.append((updates, float(np.mean(recent))))
                looks.append((updates, loss))
                recent.clear()
                if reward is run.parts["reward"]:
                    run.tracker.log({"train/loss": training[-1][1], "validation/loss": loss.mean}, updates)
                if record["best"] is None or loss.mean < record["best"][1]:
                    record["best"] = [updates, loss.mean]
                    save_checkpoint(place, reward.save, {**record, "finished": True, "choices": run.choices, "config": run.config, **run.identity})
                waited = sum(later > record["best"][0] for later, _ in looks)
                record["stopped"] = f"after {waited} looks without a lower validation loss" if self.patience and waited >= self.patience else ""
                return not record["stopped"]

            reward.fit(pairs["train"], Learning(between_updates, run.settings.seed, run.device))
        reward.load(open_checkpoint(place)[0], run.device)
        return (training, looks), record

    def _judge(self, reward: FittedReward, pairs: Sequence[Preference]) -> dict[str, Any]:
        """A fitted reward on held-out pairs."""
        subsets = dict.fromkeys(self._subset(pair) for pair in pairs if self._subset(pair) is not None)
        by_subset = {name: _ordered(reward, [pair for pair in pairs if self._subset(pair) == name]) for name in subsets}
        pairs = self._measured(pairs)
        told = agreement(_ahead(reward, pairs), Truth.of(pairs), calibrated=True) | _doubts(reward, pairs)
        if all(name in pair.chosen.fields for pair in pairs for name in _GOLD):
            told |= _beside_gold(reward, pairs)
        return told | {"by_subset": by_subset}

    def _measured(self, pairs: Sequence[Preference]) -> Sequence[Preference]:
        return [pair for pair in pairs if self._subset(pair) != self.apart]

    def _subset(self, pair: Preference) -> str | None:
        return pair.chosen.fields.get(self.subset)


def _ordered(reward: FittedReward, pairs: Sequence[Preference]) -> dict[str, Any]:
    """How many of some pairs are ordered as they were labelled, and what the reward doubts of them."""
    right = hits(_ahead(reward, pairs), Truth.of(pairs))
    return {"accuracy": asdict(bootstrap(right[np.isfinite(right)])) if np.isfinite(right).any() else None, **_doubts(reward, pairs)}


def _doubts(reward: FittedReward, pairs: Sequence[Preference]) -> dict[str, float]:
    """Means over all turns of both sides."""
    turns = [Step(*turn, {}, {}) for pair in pairs for side in (pair.chosen, pair.rejected) for turn in turns_of(side)]
    return {sign: float(np.mean(found)) for sign, found in reward.doubts(turns).items()}


def _ahead(reward: FittedReward, pairs: Sequence[Preference]) -> Floats:
    chosen, rejected = (score_trajectories(reward, [getattr(pair, side) for pair in pairs]) for side in ("chosen", "rejected"))
    return chosen - rejected


def _by_length(pairs: Sequence[Preference]) -> dict[str, Any]:
    """Two ways to judge without reading."""

    def ahead(size: Any) -> Floats:
        return np.array([size(pair.chosen) - size(pair.rejected) for pair in pairs], dtype=np.float64)

    sizes = {"longer": lambda conversation: words([act for _, act in turns_of(conversation)]), "fewer_turns": lambda conversation: -len(turns_of(conversation))}
    return {name: agreement(ahead(size), Truth.of(pairs), calibrated=False) for name, size in sizes.items()}


def _beside_gold(reward: FittedReward, pairs: Sequence[Preference]) -> dict[str, Any]:
    """Where the gold of both sides is known: the order of all trajectories, and what the highest scored of n of them is worth.

    Trajectories of all pairs together, since a pair holds no more than two of one situation: which situations are met is part of what is measured.
    """
    from scipy.stats import spearmanr

    trajectories = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
    gold = np.array([float(pair.chosen.fields[name]) for pair in pairs for name in _GOLD])
    scores = score_trajectories(reward, trajectories)
    curves = {"reward": best_of(scores, gold, _SIZES), "gold": best_of(gold, gold, _SIZES)}
    return {"gold_correlation": float(spearmanr(scores, gold).statistic), "best_of": curves}


def _numbers(told: Mapping[str, Any]) -> dict[str, float]:
    """Single numbers of what was found, for a tracker."""
    means = {name: value["mean"] if isinstance(value, Mapping) and "mean" in value else value for name, value in told.items()}
    return {name: float(value) for name, value in means.items() if isinstance(value, int | float)}
