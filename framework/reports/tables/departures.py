"""Gold and the reward that was climbed, against how far the policy had gone from where it began: a sheet and a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from framework.preferences.overoptimization import budget, coefficients
from framework.reports.tables.finished import Row
from framework.reports.tables.sheets import Sheet, seeds_of, shown
from framework.statistics import bootstrap
from framework.types import Estimate, Floats

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_FORM = "rl"  # d(α − β log d), of those in `framework.preferences.overoptimization`
_PAID = {"gold": "#1b7837", "reward": "#b2182b"}


def went(row: Row) -> bool:
    """Whether all runs of a row tell how far they went, at as many looks; where batches are whole episodes, looks come at steps of each run's own."""
    paths = [(run.climbed or {}).get("path", ()) for run in row.runs]
    return bool(paths) and len(paths[0]) > 1 and len(set(map(len, paths))) == 1


def sheets(rows: Sequence[Row]) -> Iterator[Sheet]:
    """World by world: a line for each look at each policy, then where gold was highest, then the form of Gao and others fitted to each seed's looks.

    How much more was promised than kept, the area of `framework.preferences.overoptimization.Climb`, is not told: gold and a fitted reward have units
    of their own, and what is kept of a look are means of both, not the spread over trajectories of one start by which both could be measured.
    """
    for world in dict.fromkeys(row.subject for row in rows):
        here = [row for row in rows if row.subject == world and went(row)]
        if here:
            columns = ["policy", "seeds", "steps", "KL, nats", "gold gained", "reward gained"]
            yield Sheet(f"{world}: how far policies went from their start, and what it bought (validation, acts drawn)", columns, _looks(here))
            columns = ["policy", "seeds", "steps", "KL, nats", "gold gained", "lost by the last look", "budget, nats"]
            title = f"{world}: where gold was highest; budget: the least mean KL whose mean gold is within the interval there"
            yield Sheet(title, columns, [_height(row) for row in here])
            columns = ["policy", "seeds", "alpha", "beta", "R2"]
            yield Sheet(f"{world}: gold gained = d (alpha - beta log d), d the square root of KL", columns, [_form(row) for row in here])


def _looks(rows: Sequence[Row]) -> list[list[str]]:
    lines = []
    for row in rows:
        columns = [[shown(bootstrap(seeds)) for seeds in _columns(row, name).T] for name in ("kl", *_paid(row))]
        missing = [""] * (len(_PAID) - len(_paid(row)))
        lines += [[row.name, seeds_of(row), f"{step:,.0f}", *cells, *missing] for step, *cells in zip(_steps(row), *columns, strict=True)]
    return lines


def _height(row: Row) -> list[str]:
    kl, gold = _columns(row, "kl"), _columns(row, "gold")
    peak = int(gold.mean(axis=0).argmax())
    there, lost = bootstrap(gold[:, peak]), bootstrap(gold[:, peak] - gold[:, -1])
    enough = budget(kl.mean(axis=0), gold.mean(axis=0), there)
    return [row.name, seeds_of(row), f"{_steps(row)[peak]:,.0f}", *map(shown, (bootstrap(kl[:, peak]), there, lost)), f"{enough:.2f}"]


def _form(row: Row) -> list[str]:
    fits, explained = [], []
    for kl, gains in zip(_columns(row, "kl"), _columns(row, "gold"), strict=True):
        away = kl > 0
        d, gained = np.sqrt(kl[away]), gains[away]
        if len(d) < 3:
            return [row.name, seeds_of(row), "", "", "fewer than three looks away from the start"]
        alpha, beta = coefficients(_FORM, d, gained[None])[0]
        fits.append((alpha, beta))
        left = gained - d * (alpha - beta * np.log(d))
        explained.append(1 - float(left @ left) / (float(((gained - gained.mean()) ** 2).sum()) or 1.0))
    return [row.name, seeds_of(row), *(shown(bootstrap(values)) for values in zip(*fits, strict=True)), f"{np.mean(explained):.2f}"]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Gold (left axis) and the climbed reward (right axis) against √KL, a panel for each policy; means over seeds at each look, bands of 95 %."""
    kept = [row for row in rows if went(row)]
    figure, panels = plt.subplots(len(kept), figsize=(7, 3.2 * len(kept)), layout="constrained", squeeze=False)
    for axes, row in zip(panels[:, 0], kept, strict=True):
        distance = np.sqrt(_columns(row, "kl").mean(axis=0).clip(min=0))
        for name in _paid(row):
            side, colour = axes if name == "gold" else axes.twinx(), _PAID[name]
            found: list[Estimate] = [bootstrap(seeds) for seeds in _columns(row, name).T]
            side.fill_between(distance, [e.low for e in found], [e.high for e in found], color=colour, alpha=0.2, linewidth=0)
            side.plot(distance, [e.mean for e in found], color=colour, marker="o", markersize=3, linestyle="-" if name == "gold" else "--")
            side.set_ylabel(f"{name} gained", color=colour, fontsize=8)
        axes.set_title(f"{row.subject}, {row.name}, {seeds_of(row)}", fontsize=8)
        axes.set_xlabel("square root of KL, nats", fontsize=8)
        axes.grid(alpha=0.2)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _path(run: Any) -> Sequence[tuple[int, Mapping[str, Any]]]:
    path: Sequence[tuple[int, Mapping[str, Any]]] = run.climbed["path"]
    return path


def _paid(row: Row) -> list[str]:
    """Gold, and the reward that was climbed, where there was one apart from the preferences themselves."""
    return [name for name in _PAID if name in _path(row.runs[0])[0][1]]


def _steps(row: Row) -> Floats:
    """By look, means over seeds `[K]`."""
    return np.asarray(np.mean([[steps for steps, _ in _path(run)] for run in row.runs], axis=0))


def _columns(row: Row, name: str) -> Floats:
    """By seed and look `[R, K]`: nats, or what was gained since the first look."""
    found = np.array([[gone[name] if name == "kl" else gone[name]["mean"] for _, gone in _path(run)] for run in row.runs], dtype=np.float64)
    return found if name == "kl" else found - found[:, :1]
