"""What became of climbing fitted rewards, as people read it: a table, a file, a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from framework.preferences.overoptimization import Climb, divergence, read
from framework.reports.tables.sheets import Sheet, shown

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

SINGLE = "single"
_COLOURS = {"linear": "#b2182b", "mlp": "#2166ac", "lora": "#762a83"}
_GREY = {"gold": ("#1b7837", "-"), "domain proxy": ("#b8860b", "-."), "longer": ("#888888", ":"), "fewer turns": ("#888888", "-.")}


@dataclass(frozen=True)
class Row:
    """Rewards that differ in their seed alone, climbed."""

    teacher: str
    pairs: int
    shape: str
    scorer: str
    seeds: int
    climb: Climb

    @staticmethod
    def of(teacher: str, pairs: int, shape: str, scorer: str, curves: Sequence[Mapping[str, Sequence[float]]], sizes: Sequence[int]) -> Row:
        """From each seed's gains in `gold` and `proxy` by n."""
        gold, proxy = (np.array([each[name] for each in curves]) for name in ("gold", "proxy"))
        return Row(teacher, pairs, shape, scorer, len(curves), read(gold, proxy, sizes))


@dataclass(frozen=True)
class Study:
    """All rows, and the gains of scorers that nobody fitted, by n."""

    title: str
    sizes: Sequence[int]
    rows: Sequence[Row]
    controls: Mapping[str, Mapping[str, Sequence[float]]]


def note(study: Study) -> str:
    """What the numbers mean."""
    return (
        "Gains above the behaviour's mean, in spreads: standard deviations over the trajectories of one start. Gold: mean [95 % bootstrap interval] over "
        "seeds; with few seeds such intervals are too narrow. Best of n over trajectories of one start; KL = log n - (n - 1)/n nats, no more where some "
        "score alike. Lost: gold from the peak to the largest n. Area: between proxy and gold over sqrt(KL). Alpha, beta: of d(alpha - beta d), "
        "d = sqrt(KL); R2 of it and of d(alpha - beta log d). Budget: least KL whose mean gold is within the interval of the peak. "
        "`single`: one member, a mean over members. "
        f"`gold`: the ceiling, what n trajectories hold at best (n = {study.sizes[-1]})."
    )


def sheet(study: Study) -> Sheet:
    """A line a row, then the scorers that nobody fitted."""
    last = study.sizes[-1]
    columns = [
        "teacher, pairs, shape: scorer",
        "peak n",
        "gold at peak",
        f"gold at {last}",
        "lost",
        f"proxy at {last}",
        "area",
        "alpha",
        "beta",
        "R2 bon, rl",
        "budget, nats",
    ]
    lines = [_line(row) for row in study.rows]
    for name, curves in study.controls.items():
        gold, proxy = np.array(curves["gold"]), np.array(curves["proxy"])
        peak = int(gold.argmax())
        area = np.trapezoid(proxy - gold, np.sqrt(divergence(study.sizes)))
        numbers = [gold[peak], gold[-1], gold[peak] - gold[-1], proxy[-1], area]
        lines.append([name, str(study.sizes[peak]), *(f"{number:.3f}" for number in numbers), "", "", "", ""])
    return Sheet(study.title, columns, lines)


def _line(row: Row) -> list[str]:
    climb, bon, rl = row.climb, row.climb.forms["best_of_n"], row.climb.forms["rl"]
    told = [climb.gold[-1], climb.lost, climb.proxy[-1], climb.area, bon.alpha, bon.beta]
    peak = max(climb.gold, key=lambda estimate: estimate.mean)
    name = f"{row.teacher} {row.pairs:,} {row.shape}: {row.scorer.replace('_', ' ')}"
    return [name, str(climb.peak), str(peak), *map(shown, told), f"{bon.explained:.2f}, {rl.explained:.2f}", f"{climb.budget:.2f}"]


def plain(study: Study) -> dict[str, Any]:
    """For a file; what is infinite is null there."""
    rows = [_finite(asdict(row)) for row in study.rows]
    return {"sizes": list(study.sizes), "kl": divergence(study.sizes).tolist(), "rows": rows, "controls": dict(study.controls)}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def draw(study: Study, path: Path) -> None:
    """Gold (solid) and proxy (dashed) against √KL: a panel a data size and teacher, a colour a shape; dotted, the gold of the ensemble's mean."""
    teachers, sizes = (list(dict.fromkeys(getattr(row, name) for row in study.rows)) for name in ("teacher", "pairs"))
    shape = (len(teachers), len(sizes))
    figure, panels = plt.subplots(*shape, figsize=(3.2 * shape[1] + 1.5, 3 * shape[0] + 0.6), layout="constrained", squeeze=False, sharex=True, sharey=True)
    for place, axes in np.ndenumerate(panels):
        teacher, pairs = teachers[place[0]], sizes[place[1]]
        _panel(axes, [row for row in study.rows if (row.teacher, row.pairs) == (teacher, pairs)], study)
        axes.set_title(f"{teacher}, {pairs:,} pairs", fontsize=9)
    panels[0, 0].set_ylim(*_reach(study))
    figure.supxlabel("square root of KL, nats", fontsize=9)
    figure.supylabel("gain, spreads (solid: gold, dashed: proxy)", fontsize=9)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _reach(study: Study) -> tuple[float, float]:
    """Of what was fitted, and of gold: a scorer that nobody fitted may fall out of the picture, lest it be all that is seen."""
    drawn = [value for row in study.rows for e in (*row.climb.gold, *row.climb.proxy) for value in (e.low, e.high)]
    low, high = min(0.0, *drawn), max(*drawn, *study.controls["gold"]["gold"])
    return low - 0.1 * (high - low), high + 0.05 * (high - low)


def _panel(axes: Axes, rows: Sequence[Row], study: Study) -> None:
    distance = np.sqrt(divergence(study.sizes))
    for name, (colour, style) in _GREY.items():
        axes.plot(distance, study.controls[name]["gold"], color=colour, linestyle=style, linewidth=1, label=f"gold, by {name}")
    for row in rows:
        colour, gold = _COLOURS[row.shape], row.climb.gold
        if row.scorer == "mean":
            axes.plot(distance, [e.mean for e in gold], color=colour, linestyle=":", linewidth=1.2, label=f"gold, {row.shape} ensemble")
        if row.scorer == SINGLE:
            axes.fill_between(distance, [e.low for e in gold], [e.high for e in gold], color=colour, alpha=0.2, linewidth=0)
            axes.plot(distance, [e.mean for e in gold], color=colour, linewidth=1.5, label=f"gold, {row.shape}")
            axes.plot(distance, [e.mean for e in row.climb.proxy], color=colour, linestyle="--", linewidth=1, label=f"proxy, {row.shape}")
    axes.axhline(0, color="#cccccc", linewidth=0.7, zorder=0)
    axes.grid(alpha=0.2)
