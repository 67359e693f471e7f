"""What a tuned language model came to: `summary.json`, the table at the end, the model's card and the report."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from framework.datasets import SPLITS
from framework.experiment import Run
from framework.reports.report import write_page
from framework.reports.tables.finished import loss_name
from framework.tuning.answering import Answers
from framework.tuning.preferring import Verdict
from framework.types import Estimate

_SHOWN = 12  # rows of the report's side-by-side


def summarise(run: Run, record: Mapping[str, Any], tuned: Answers, most: int) -> dict[str, Any]:
    """Base, tuned and others on the test split, as plain data."""
    rows = run.data.conversations("test")[:most]
    others = {name: asdict_all(run.data.scores(said[: len(rows)], rows)) for name, said in run.data.baselines("test").items()}
    sizes = {split: len(run.data.conversations(split)) for split in SPLITS}
    return {**story(run, record, sizes), "answered": len(rows), "base": _plain(record["base"]), "tuned": _plain(asdict(tuned)), "others": others}


def preference_summary(run: Run, record: Mapping[str, Any], tuned: Verdict, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Base and tuned on the pairs of the test split, as plain data."""
    return {**story(run, record, sizes), "answered": len(tuned.said), "base": _plain(record["base"]), "tuned": _plain(asdict(tuned)), "others": {}}


def story(run: Run, record: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Which run it was, on how many rows of which data, and how it went."""
    data = run.parts["data"]
    return {
        **run.identity,
        "rows": dict(sizes),
        "best": record["best"],
        "updates": record["updates"],
        "stopped": record["stopped"],
        "warnings": list(data.warnings()),
        "digest": getattr(data, "digest", None),
    }


def measures(found: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured of a model, in columns: its scores first, then losses."""
    return {**found["scores"], loss_name(found): found["loss"], **({"token accuracy": found["accuracy"]} if "accuracy" in found else {})}


def asdict_all(estimates: Mapping[str, Any]) -> dict[str, Any]:
    """Named estimates as plain data."""
    return {name: asdict(estimate) for name, estimate in estimates.items()}


def print_tuning(summary: Mapping[str, Any], directory: Path) -> None:
    """The table at the end of a run, and where things are."""
    console = Console(width=120)
    names = list(measures(summary["tuned"]))
    table = Table(title=f"{summary['data']} · lm={summary['lm']} ({summary['adapter']}) · seed {summary['seed']}", title_justify="left")
    for column in ("test split", *(name.replace("_", " ") for name in names)):
        table.add_column(column, justify="left" if column == "test split" else "right")
    for name, scores in summary.get("others", {}).items():
        table.add_row(name.replace("_", " "), *(_interval(scores.get(score)) for score in names))
    for name in ("base", "tuned"):
        table.add_row(f"{name} model", *map(_interval, measures(summary[name]).values()), style="bold" if name == "tuned" else "")
    console.print(table)
    console.print(f"{summary['answered']} rows of the test split answered; 95 % bootstrap intervals over rows. One seed is a demonstration, not a result.")
    if "updates" in summary:
        stopped = f" Stopped {summary['stopped']}." if summary["stopped"] else ""
        console.print(
            f"{summary['updates']:,} updates, {summary['wall_s']:.0f} s. Kept: the model best on validation, at update {summary['best'][0]:,}.{stopped}"
        )
        console.print(f"run: {directory}\nsee: {directory / 'learning_curve.png'}, {directory / 'report.html'}")
        console.print(f"talk to it: python run.py experiment=chat checkpoint={directory}", soft_wrap=True)


def model_card(run: Run, summary: Mapping[str, Any]) -> str:
    """`README.md` of a tuned model: what it was made from and how, and what it scored."""
    names = list(measures(summary["tuned"]))
    lines = [
        "---",
        "library_name: " + ("peft" if summary["adapter"] == "lora" else "transformers"),
        "pipeline_tag: text-generation",
        "---",
        "",
        f"# {summary['lm']} tuned on {summary['data']}",
        "",
        f"Made by `{shlex.join(['python', 'run.py', *run.choices])}`, seed {summary['seed']}.",
        "",
        f"- base model: {run.config['lm'].get('path')}; what learnt: {summary['adapter']}",
        f"- data: {summary['data']}; rows: {', '.join(f'{split} {count}' for split, count in summary['rows'].items())}",
        *([f"- SHA-256 of the data: `{summary['digest']}`"] if summary["digest"] else []),
        f"- {summary['updates']} updates; kept: update {summary['best'][0]}, the lowest loss on the validation split",
        *(f"- warning: {warning}" for warning in summary["warnings"]),
        "",
        f"On {summary['answered']} rows of the test split (mean [95 % bootstrap interval over rows]):",
        "",
        "| | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
        *_card_rows(summary, names),
        "",
        "It answers in the manner of its data, also where it does not know; judge it on rows it has not seen.",
        "",
    ]
    return "\n".join(lines)


def write_tuning_report(run: Run, summary: Mapping[str, Any], sides: Sequence[tuple[str, Mapping[str, str]]]) -> Path:
    """Writes `report.html`: the table, the curve, and what was said, side by side.

    Args:
        run: where the page goes.
        summary: what `summary.json` holds.
        sides: prompts, each with what is said to it, by who says so.
    """
    measured = {name: measures(summary[name]) for name in ("base", "tuned")}
    return write_page("tuning.html", run.directory, run.title, summary=summary, measured=measured, sides=sides[:_SHOWN])


def _card_rows(summary: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    others = [[name, *(_interval(scores.get(score)) for score in names)] for name, scores in summary["others"].items()]
    models = [[name, *map(_interval, measures(summary[name]).values())] for name in ("base", "tuned")]
    return ["| " + " | ".join(row) + " |" for row in (*others, *models)]


def _plain(answers: Mapping[str, Any]) -> dict[str, Any]:
    """Without the answers themselves."""
    return {key: value for key, value in answers.items() if key not in ("said", "split")}


def _interval(estimate: Mapping[str, float] | None) -> str:
    return "" if estimate is None else str(Estimate(**estimate))
