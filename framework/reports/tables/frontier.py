"""The frontier of gold and KL as people read it: a table, a file, a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np

from framework.oracles.frontier import Path
from framework.reports.tables.sheets import Sheet, shown
from framework.statistics import bootstrap

if TYPE_CHECKING:
    from pathlib import Path as File

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_COLOURS = {"gold": "#1b7837", "proxy": "#b8860b"}


@dataclass(frozen=True)
class Paths:
    """What was climbed, and by which ways: one for each seed, and one alone of rewards that are known."""

    title: str
    optimum: float
    budgets: Sequence[float]  # KL of an episode, nats
    found: Mapping[str, Sequence[Path]]

    @property
    def note(self) -> str:
        """What the numbers mean."""
        return (
            "Gold of a policy that climbs a reward and gives up so many nats of KL an episode; exact, but for straight lines over the root of KL between "
            f"the policies that were solved. `gold`: the frontier, nobody earns more at that KL; the optimum earns {self.optimum:.3f}. learnt: the mean of "
            "what the reference's own acts earned, each draw of acts a seed; mean [95 % bootstrap interval] over seeds, too narrow with few."
        )


def sheet(paths: Paths) -> Sheet:
    """A line for each reward that is climbed."""
    columns = ["climbed", "0 nats", *(f"{budget:g} nats" for budget in paths.budgets), "at the end", "KL there"]
    lines = []
    for name, ways in paths.found.items():
        golds = np.array([[*way.at([0.0, *paths.budgets]), way.gold[-1]] for way in ways]).T
        lines.append([name, *(shown(bootstrap(gold)) for gold in golds), f"{np.mean([way.kl[-1] for way in ways]):.1f}"])
    return Sheet(paths.title, columns, lines)


def plain(paths: Paths) -> dict[str, Any]:
    """For a file."""
    ways = {name: [{"kl": way.kl.tolist(), "gold": way.gold.tolist(), "climbed": way.climbed.tolist()} for way in found] for name, found in paths.found.items()}
    return {"optimum": paths.optimum, "paths": ways}


def draw(paths: Paths, file: File) -> None:
    """Left what is earned, right what is promised, against √KL; a line a seed."""
    figure, (kept, promised) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    learnt = [name for name in paths.found if name not in _COLOURS]
    colours = _COLOURS | {name: plt.get_cmap("Blues")(0.35 + 0.6 * place / max(1, len(learnt))) for place, name in enumerate(learnt, start=1)}
    for name, ways in paths.found.items():
        for number, way in enumerate(ways):
            style = {"color": colours[name], "linewidth": 1.8 if name == "gold" else 1.1, "label": name if not number else None}
            kept.plot(np.sqrt(way.kl), way.gold, **style)
            promised.plot(np.sqrt(way.kl), (way.climbed - way.climbed[0]) / (np.ptp(way.climbed) or 1.0), **style)
    kept.axhline(paths.optimum, color="#1b7837", linestyle=":", linewidth=1)
    kept.set_title("gold that is earned (dotted: the optimum)", fontsize=10)
    promised.set_title("gain in the reward that is climbed, as a share of all there is", fontsize=10)
    for axes in (kept, promised):
        axes.set_xlabel("square root of KL, nats")
        axes.grid(alpha=0.2)
    kept.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0.0, 0.93))
    figure.savefig(file, dpi=150)
    plt.close(figure)
