"""`report.html`: a run on one page that needs nothing but itself.

What worlds and models say is hostile input: all of it is escaped, and the page's own security policy lets no script run and
nothing be fetched.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.console import Console

from framework.evaluation import Evaluation
from framework.experiment import Run, write_json
from framework.ledger import told_in_words
from framework.reports.tables.finished import SPLITS_TOLD, scores_of_reference
from framework.reports.tables.sheets import Sheet
from framework.types import Episode, Step

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


@dataclass(frozen=True)
class _Turn:
    """A step, and which lines of its observation were not on the screen before."""

    lines: Sequence[str]
    step: Step


def write_report(summary: Mapping[str, Any], evaluations: Sequence[Evaluation], directory: Path, title: str) -> Path:
    """Writes `report.html` into a run's directory.

    Args:
        summary: what `summary.json` holds.
        evaluations: where the episodes to read are taken from.
        directory: of the run.
        title: what was run.
    """
    return write_page(
        "run.html",
        directory,
        title,
        summary=summary,
        splits=SPLITS_TOLD[summary.get("best_known", "optimum") == "optimum"],
        scores={name: scores_of_reference(summary, name)["score"].mean for name in summary["references"]},
        recorded={split: block for split, block in summary.items() if isinstance(block, Mapping) and "rivals" in block},
        climbed=told_in_words(summary["climbed"]) if "climbed" in summary else [],
        stories={evaluation.split: [(episode, list(_turns(episode))) for episode in evaluation.stories] for evaluation in evaluations if evaluation.stories},
    )


def write_page(template: str, directory: Path, title: str, **shown: Any) -> Path:
    """Writes `report.html` into a run's directory, with its learning curve and configuration where they exist.

    Args:
        template: a file in `templates/`.
        directory: of the run.
        title: what was run.
        shown: what the template speaks of.
    """
    curve, config = directory / "learning_curve.png", directory / "config.yaml"
    page = _TEMPLATES.get_template(template).render(
        title=title,
        curve=base64.b64encode(curve.read_bytes()).decode() if curve.exists() else None,
        config=config.read_text(encoding="utf-8") if config.exists() else None,
        **shown,
    )
    path = directory / "report.html"
    path.write_text(page, encoding="utf-8", errors="replace")  # a model may say half a character
    return path


def write_sheet(run: Run, table: Sheet, note: str, record: Mapping[str, Any], title: str, lead: str, curve_told: str) -> None:
    """Leaves a table in a run's directory as `table.md`, `table.json` and `report.html`, and shows it.

    Args:
        run: whose directory; its `learning_curve.png` goes onto the page.
        table: to be read.
        note: what its numbers mean.
        record: the same for a file.
        title: of the page.
        lead: what the page is about, in a sentence.
        curve_told: what the picture shows.
    """
    (run.directory / "table.md").write_text(f"{table.markdown()}\n{note}\n", encoding="utf-8")
    write_json(run.directory / "table.json", {**run.identity, **record})
    write_page("sheet.html", run.directory, title, lead=lead, table=table, note=note, curve_told=curve_told)
    Console(width=170, markup=False, highlight=False).print(table.printable(), note, f"{run.directory}: table.md, table.json, report.html", sep="\n")


def _turns(episode: Episode) -> Iterator[_Turn]:
    """Worlds repeat what was said before; a reader wants to see it once."""
    seen: list[str] = []
    for step in episode.steps:
        lines = step.observation.split("\n")
        yield _Turn(lines[len(seen) :] if lines[: len(seen)] == seen else lines, step)
        seen = lines
