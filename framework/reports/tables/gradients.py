"""Estimators of a policy gradient beside the truth, as people read them: on the screen, in Markdown, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
from rich.table import Table

from framework.gradients.estimators import Estimator
from framework.gradients.exact import Accuracy, Truth
from framework.reports.tables.sheets import Sheet

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_COLUMNS = ("estimator", "bias of", "scale", "bias", "σ", "rescaled", "σ rescaled", "cosine", "deviation", "SNR", "episodes", "one cosine")
_COLOURS = {"REINFORCE": "#2166ac", "group": "#b2182b", "turn index": "#762a83", "GAE": "#1b7837", "as run": "#b8860b"}
_BELOW = 0.05  # degrees; from here upwards stand the dots of which no bias of the direction was found


@dataclass(frozen=True)
class Found:
    """What was found of the estimators of one policy's gradient."""

    policy: str
    truth: Truth
    optimum: float  # return of the best policy
    kl: float  # to random acts, nats an episode
    length: float  # of the exact gradient
    episodes: int  # of a batch
    rows: Sequence[tuple[Estimator, Accuracy]]


def note(episodes: int, batches: int, sigmas: float) -> str:
    """What the columns mean."""
    return (
        f"{batches:,} batches of {episodes} episodes. Lengths are shares of the exact gradient's. bias: of the mean estimate; rescaled: what is left "
        f"when the mean is divided by its scale, a bias of the direction; each is told from none from {sigmas:g} σ on. cosine: of the mean and the "
        "truth. deviation: root of the summed variances of one estimate. SNR: squared length of the mean by these variances. episodes: for an SNR of 1. "
        "one cosine: of one estimate and the truth, on average."
    )


def sheet(found: Found, sigmas: float) -> Sheet:
    """A line an estimator."""
    title = (
        f"{found.policy}: return {float(found.truth.value):.4f} (optimum {found.optimum:.4f}), {float(found.truth.visits.sum()):.2f} turns, "
        f"KL to random acts {found.kl:.4f}, length of the gradient {found.length:.4g}"
    )
    lines = [_line(number, *row, found.episodes, sigmas) for number, row in enumerate(found.rows, start=1)]
    return Sheet(title, _COLUMNS, lines)


def _line(number: int, estimator: Estimator, found: Accuracy, episodes: int, sigmas: float) -> list[str]:
    bias = [f"{found.bias:.3f}", f"{found.bias_sigmas:.1f}", f"{found.turned:.3f}", f"{found.turned_sigmas:.1f}", f"{found.cosine:.3f}"]
    noise = [f"{found.deviation:.2f}", f"{found.snr:.2f}", f"{episodes / found.snr:,.0f}", f"{found.one_cosine:.2f}"]
    return [f"{number} {estimator.name}", found.verdict(sigmas), f"{found.scale:.3f}", *bias, *noise]


def printable(table: Sheet) -> Table:
    """For the screen."""
    shown = Table(title=table.title, title_justify="left")
    for number, column in enumerate(table.columns):
        shown.add_column(column, justify="right" if number > 1 else "left")
    for line in table.lines:
        shown.add_row(*line, style="bold" if line[1] == "direction" else None)
    return shown


def plain(found: Found, sigmas: float) -> dict[str, Any]:
    """For a file."""
    truth = found.truth
    exact = {"return": float(truth.value), "optimum": found.optimum, "kl": found.kl, "length": found.length}
    tables = {
        "values": truth.values.tolist(),
        "visits": truth.visits.tolist(),
        "policy": truth.logprobs.exp().tolist(),
        "advantages": truth.advantages.tolist(),
    }
    rows = [{"estimator": estimator.name, "bias_of": row.verdict(sigmas), **asdict(row)} for estimator, row in found.rows]
    return {"policy": found.policy, "episodes": found.episodes, "exact": {**exact, **{f"{name}_table": table for name, table in tables.items()}}, "rows": rows}


def draw(found: Sequence[Found], sigmas: float, path: Path) -> None:
    """Bias against standard deviation, a dot an estimator, a panel a policy; neither knows of the scale, which a learning rate mends.

    Height is the angle between mean estimate and truth. Where none was found dots are hollow, and stand below, one beside the other.
    """
    figure, panels = plt.subplots(1, len(found), figsize=(5 * len(found) + 2.5, 5.5), layout="constrained", squeeze=False, sharey=True)
    for axes, part in zip(panels[0], found, strict=True):
        _panel(axes, part, sigmas)
    panels[0, 0].set_ylabel("angle of the mean estimate to the exact gradient, degrees")
    for number, (estimator, _) in enumerate(found[0].rows, start=1):
        place, colour = 0.94 - 0.88 * number / len(found[0].rows), _COLOURS[estimator.family]
        figure.text(1.0, place, f"{number:>2} {estimator.name}", fontsize=7, color=colour, family="monospace")
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)


def _panel(axes: Axes, found: Found, sigmas: float) -> None:
    below = 0
    for number, (estimator, row) in sorted(enumerate(found.rows, start=1), key=lambda numbered: numbered[1][1].snr):
        colour, told = _COLOURS[estimator.family], row.turned_sigmas >= sigmas or row.scale <= 0
        below += not told
        place = (row.snr**-0.5, row.angle if told else _BELOW * 1.22 ** (1 + below % 8))
        axes.scatter(*place, s=32, c=colour if told else "white", edgecolors=colour, zorder=2)
        axes.annotate(str(number), place, (5, -2), textcoords="offset points", fontsize=7, color=colour)
    axes.set(xscale="log", yscale="log", xlabel="standard deviation of one estimate / length of its mean", ylim=(_BELOW, 200))
    axes.axhline(_BELOW * 1.22**9.5, color="#888888", linewidth=0.5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.set_xticks([0.3, 0.5, 0.7, 1, 1.5, 2])
    axes.set_yticks([1, 3, 10, 30, 90])
    axes.annotate("no bias of the direction found", (0.01, _BELOW * 1.22**8.6), xycoords=("axes fraction", "data"), fontsize=7, color="#888888")
    axes.set_title(found.policy, fontsize=10)
    axes.grid(alpha=0.2)
