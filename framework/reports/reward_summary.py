"""The table at the end of a fit, and where things are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from framework.types import Estimate

SHOWN = {
    "accuracy": "agrees with labels",
    "expected_agreement": "expected",
    "true_agreement": "with the truth",
    "loss": "log-loss",
    "calibration_error": "calibration error",
    "margin_correlation": "rank correlation in pairs",
    "gold_correlation": "over trajectories",
    "gold_captured": "gold captured",
}
"""What a table shows of a reward on held-out pairs, as far as it is known, and what it is called there."""


def print_fit(summary: Mapping[str, Any], title: str, directory: Path, reader: str | None) -> None:
    """What a fitted reward came to on held-out pairs, beside what needs no language model; `reader`: which `lm` it goes with, where not with any."""
    console, test, validation = Console(width=140), summary["test"], summary["validation"]
    table = Table(title=title, title_justify="left")
    names = [name for name in SHOWN if name in test]
    for column in ("test pairs", *(SHOWN[name] for name in names)):
        table.add_column(column.replace(" ", "\n"), justify="left" if column == "test pairs" else "right")
    for name, found in summary["controls"].items():
        table.add_row(name.replace("_", " "), *_cells(found, names))
    table.add_row(summary["reward"].replace("_", " "), *_cells(test, names), style="bold")
    table.add_row("  validation", *_cells(validation, names))
    if "bayes_accuracy" in test:
        best = {"accuracy": test["bayes_accuracy"], "expected_agreement": test["bayes_accuracy"], "true_agreement": 1.0, "loss": test["bayes_loss"]}
        table.add_row("most that is possible", *_cells(best, names), style="dim")
    console.print(table)
    if "gold_correlation" in test:
        console.print("Rank correlation in pairs: with differences in gold. Over trajectories: with gold, trajectories of all situations taken together.")
    if "bayes_gap" in test:
        also = f", {_points(validation['bayes_gap'])} on the validation pairs" if "bayes_gap" in validation else ""
        console.print(f"Short of the most that anyone could agree with this teacher: {_points(test['bayes_gap'])} points{also}.")
    for name, found in test["by_subset"].items():
        doubts = [f"{sign} {value:.2f}" for sign, value in found.items() if sign != "accuracy"]
        console.print(", ".join([f"{name}: {_cell(found['accuracy'])} of its pairs ordered as labelled", *doubts]))
    for warning in summary["warnings"]:
        console.print(f"warning: {warning}", soft_wrap=True)
    stopped = f" Stopped {summary['stopped']}." if summary["stopped"] else ""
    console.print(f"{summary['updates']:,} updates, {summary['wall_s']:.0f} s. Kept: the least validation loss, at update {summary['best'][0]:,}.{stopped}")
    console.print(f"{summary['pairs']['test']} test pairs; 95 % bootstrap intervals over pairs. One seed is a demonstration, not a result.")
    console.print(f"run: {directory}\nsee: {directory / 'learning_curve.png'}, {directory / 'report.html'}")
    console.print(f"train on it: python run.py reward={summary['reward']} reward.path={directory}{f' lm={reader}' if reader else ''}", soft_wrap=True)


def _points(share: Mapping[str, float]) -> str:
    return f"{100 * share['mean']:.1f} [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"


def _cells(found: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Of a row, intervals under their means."""
    return [_cell(found.get(name)).replace(" [", "\n[") for name in names]


def _cell(value: Mapping[str, float] | float | None) -> str:
    if isinstance(value, Mapping):
        return str(Estimate(**value))
    return "" if value is None else f"{value:.3f}"
