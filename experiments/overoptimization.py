"""How far a fitted reward can be climbed before gold falls: `experiment=overoptimization`.

Best of n over trajectories of one start, for every shape of reward, number of pairs, teacher and seed; see `framework.preferences.overoptimization`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import torch
from pydantic import Field

from framework.config import Count, Fraction, Positive, differences, flat
from framework.errors import CheckpointError, ConfigError
from framework.experiment import Experiment, Interrupted, Run, Stop, write_json
from framework.interfaces import Algorithm, Domain, Learning, Tuning
from framework.lm.adapters import Lora
from framework.lm.encoder import LineEncoder
from framework.lm.read_once import ReadOnce
from framework.preferences.behaviours import Stage
from framework.preferences.climbing import Players, Trajectories, first_pairs, judged_pairs, play_trajectories
from framework.preferences.overoptimization import climbed
from framework.preferences.teachers import Pool, Teacher
from framework.preferences.turn_reward import TurnReward
from framework.progress import progress
from framework.reports.report import write_sheet
from framework.reports.tables.overoptimization import SINGLE, Row, Study, draw, note, plain, sheet
from framework.rewards.ensemble import Aggregation, Ensemble, combined
from framework.types import Floats, Preference

_SPLIT = "validation"  # of the pool: unseen clients, known wordings
_LARGEST = 256
_MAY_GROW = ("shapes", "pairs", "seeds", "teachers")  # a grid may be enlarged and gone on with


@dataclass(frozen=True)
class Cell:
    """One reward to be fitted."""

    seed: int
    teacher: str
    pairs: int
    shape: str

    @property
    def file(self) -> str:
        """Where it is kept."""
        return f"{self.teacher}-{self.pairs}-{self.shape}-{self.seed}.json"


class Overoptimization(Experiment):
    """Leaves `cells/`, a file for each reward that was climbed, and of all of them `table.md`, `table.json`, `learning_curve.png` and `report.html`.

    Args:
        shapes: sizes of the reward: a linear network or an MLP on frozen features, or an MLP whose reader learns by an adapter.
        lora: that adapter.
        pairs: numbers of judged pairs; the fewer are the first of the more.
        teachers: who judges, by name.
        seeds: of pairs and weights.
        starts: of the pool that is climbed, which all cells share.
        trajectories: of each start; n goes up to a quarter of them, and to 256.
        behaviours: who plays: references of the oracle, and how often against the others.
        wander: share of their acts that is taken at random instead.
    """

    def __init__(
        self,
        shapes: Sequence[Literal["linear", "mlp", "lora"]],
        lora: Lora,
        pairs: Sequence[Count],
        teachers: Mapping[str, Teacher],
        seeds: Count,
        starts: Count,
        trajectories: Annotated[int, Field(ge=16)],
        behaviours: Mapping[str, Positive],
        wander: Fraction,
    ) -> None:
        if not (shapes and pairs and teachers and behaviours):
            raise ValueError("needs a shape, a number of pairs, a teacher and a behaviour")
        if any(teacher.style_bias for teacher in teachers.values()):
            raise ValueError("a teacher likes courtesy, of which the names of acts have none; set its style_bias=0")
        self.shapes, self.lora, self.pairs, self.teachers, self.seeds = shapes, lora, sorted(set(pairs)), teachers, seeds
        self.starts, self.trajectories, self.players = starts, trajectories, Players(behaviours, wander)
        self.sizes = [2**power for power in range(min(_LARGEST, trajectories // 4).bit_length())]

    def needs(self, algorithm: Algorithm | Tuning) -> Mapping[str, type]:
        """See `Experiment`."""
        return {"domain": Domain, "lm": LineEncoder, "reward": TurnReward}

    def run(self, run: Run) -> bool:
        """See `Experiment`."""
        reward: TurnReward = run.parts["reward"]
        if reward.reader.trainable:
            raise ConfigError("adapter", "is not what makes a reader learn here; use adapter=frozen, and experiment.shapes=[lora]")
        learning = {"lora": shaped(reward.on(reward.reader.tuned(self.lora)), "mlp")} if "lora" in self.shapes else {}
        folder = self._folder(run)
        pool = self._pool(run)
        self._fill(run, self._on_a_frozen_reader(reward, pool, run.device) | learning, pool, folder)
        self._show(run, pool, folder)
        return True

    def _on_a_frozen_reader(self, reward: TurnReward, pool: Trajectories, device: torch.device) -> dict[str, TurnReward]:
        """The rewards whose reader does not learn: all of them have it read each line once."""
        shapes = [shape for shape in self.shapes if shape != "lora"]
        if not shapes:
            return {}
        lines = sorted({line for observation, act in pool.turns for line in (*observation.split("\n"), act) if line})
        shared = reward.on(ReadOnce(reward.reader, device, lines))
        return {shape: shaped(shared, shape) for shape in shapes}

    def _cells(self, run: Run) -> Iterator[Cell]:
        seeds = range(run.settings.seed, run.settings.seed + self.seeds)
        return (Cell(seed, teacher, pairs, shape) for seed in seeds for teacher in self.teachers for pairs in self.pairs for shape in self.shapes)

    def _folder(self, run: Run) -> Path:
        """Where cells are kept; those that are there must be of the same study."""
        config: Any = {name: run.config.get(name) for name in ("seed", "domain", "lm", "adapter", "reward")}
        config["experiment"] = {name: value for name, value in run.config["experiment"].items() if name not in _MAY_GROW}
        ours, folder = json.loads(json.dumps(flat(config))), run.directory / "cells"
        folder.mkdir(exist_ok=True)
        kept = folder.parent / "study.json"
        theirs = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else ours
        if told := differences(ours, theirs):
            raise CheckpointError(f"{run.directory}: holds another study: {told}. Give its settings, or another hydra.run.dir")
        write_json(kept, ours)
        return folder

    def _pool(self, run: Run) -> Trajectories:
        """What is climbed; played anew by every call, since that is soon done."""
        Stage(run.domain, _SPLIT).check(list(self.players.weights), "experiment.behaviours")
        with progress("pool", self.starts) as tell:
            return play_trajectories(run.domain, _SPLIT, self.players, (self.starts, self.trajectories), run.settings.seed, tell)

    def _fill(self, run: Run, rewards: Mapping[str, TurnReward], pool: Trajectories, folder: Path) -> None:
        """Every cell that is not there yet."""
        left = [cell for cell in self._cells(run) if not (folder / cell.file).exists()]
        total, done, known = sum(rewards[cell.shape].steps(cell.pairs) for cell in left), 0, dict[tuple[int, str], list[Preference]]()
        with Stop() as stop, progress(f"{len(left)} rewards, updates", total) as tell:
            for cell in left:
                if (cell.seed, cell.teacher) not in known:
                    known = {(cell.seed, cell.teacher): self._judged(run, cell, pool)}
                learner = rewards[cell.shape]

                def between_updates(updates: int, metrics: Mapping[str, float], cell: Cell = cell, done: int = done) -> bool:
                    tell(done + updates, f"{cell.file.removesuffix('.json')}, loss {metrics['train/loss']:.3f}")
                    return stop.signal is None

                learner.fit(known[cell.seed, cell.teacher][: cell.pairs], Learning(between_updates, cell.seed, run.device))
                if stop.signal is not None:
                    raise Interrupted(stop.exit_code, f"the same command with hydra.run.dir={run.directory}")
                write_json(folder / cell.file, climb(learner, pool, self._gold(cell.teacher), self.sizes))
                done += learner.steps(cell.pairs)

    def _judged(self, run: Run, cell: Cell, pool: Trajectories) -> list[Preference]:
        teacher = self.teachers[cell.teacher]
        try:
            scale = Pool(pool.gold[teacher.gold].flatten())
        except ValueError as error:
            raise ConfigError("experiment.behaviours", str(error)) from error
        return first_pairs(judged_pairs(run.domain, self.players, teacher, scale, cell.seed), max(self.pairs))

    def _gold(self, teacher: str) -> Literal["reward", "regret"]:
        return self.teachers[teacher].gold

    def _show(self, run: Run, pool: Trajectories, folder: Path) -> None:
        """Screen and files."""
        found: dict[tuple[str, int, str, str], list[dict[str, list[float]]]] = {}
        for cell in self._cells(run):
            for scorer, curves in json.loads((folder / cell.file).read_text(encoding="utf-8")).items():
                found.setdefault((cell.teacher, cell.pairs, cell.shape, scorer), []).append(curves)
        rows = [Row.of(*key, curves, self.sizes) for key, curves in found.items()]
        study = Study(f"{run.domain.name}/{run.domain.environment}, lm={run.names['lm']}, {self.seeds} seeds", self.sizes, rows, controls(pool, self.sizes))
        draw(study, run.directory / "learning_curve.png")
        lead, curve = "What a reward promises and what is kept, as it is climbed by best of n.", "Gold and proxy against the square root of KL"
        write_sheet(run, sheet(study), note(study), plain(study), f"Over-optimisation: {study.title}", lead, curve)


def shaped(reward: TurnReward, network: str) -> TurnReward:
    """The same reward with another network, not fitted."""
    twin = copy.copy(reward.on(reward.reader))
    twin.shape = replace(reward.shape, network=network)  # type: ignore[arg-type]
    return twin


@torch.no_grad()
def climb(reward: TurnReward, pool: Trajectories, gold: str, sizes: Sequence[int]) -> dict[str, dict[str, list[float]]]:
    """Gains in gold and in the score itself by n: of single members, a mean over them, and of what an ensemble makes of them."""
    scores, worth = reward.member_scores(pool.turns), pool.gold[gold]
    singles = [_curves(pool.totals(member), worth, sizes) for member in scores.T]
    told = {SINGLE: {name: np.mean([single[name] for single in singles], axis=0).tolist() for name in singles[0]}}
    if isinstance(reward, Ensemble):
        ways = {way: combined(scores, way, reward.caution) for way in get_args(Aggregation)}
        told |= {way: _curves(pool.totals(joint), worth, sizes) for way, joint in ways.items()}
    return told


def controls(pool: Trajectories, sizes: Sequence[int]) -> dict[str, dict[str, list[float]]]:
    """The ceiling, which is gold itself, and scorers that nobody fitted."""
    gold = pool.gold["regret"]
    return {name: _curves(scores, gold, sizes) for name, scores in {"gold": gold, **pool.controls}.items()}


def _curves(scores: Floats, gold: Floats, sizes: Sequence[int]) -> dict[str, list[float]]:
    return {"gold": climbed(scores, gold, sizes).tolist(), "proxy": climbed(scores, scores, sizes).tolist()}
