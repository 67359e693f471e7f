"""A table of finished runs, each row a mean over seeds: `experiment=report experiment.runs=DIR`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from framework.experiment import Experiment, Run, write_json
from framework.reports.tables import departures
from framework.reports.tables.finished import Row, rows
from framework.reports.tables.sheets import NOTE, draw, sheets


class Report(Experiment):
    """Gathers runs: policies world by world, language models data source by data source.

    Writes `table.md`, `table.json` and `table.png`, and `climbed.png` where runs tell how far they went from their start.

    Args:
        runs: a directory, or several; every `summary.json` below them is read.
    """

    def __init__(self, runs: str | list[str] | None) -> None:
        self.runs = [Path(directory) for directory in ([runs] if isinstance(runs, str) else runs or [])]

    def run(self, run: Run) -> bool:
        """See `Experiment`."""
        found = rows(self.runs)
        shown = [*sheets(found), *departures.sheets(found)]
        write_json(run.directory / "table.json", [_plain(row) for row in found])
        (run.directory / "table.md").write_text("\n".join([*(sheet.markdown() for sheet in shown), NOTE, ""]), encoding="utf-8")
        draw(found, run.directory / "table.png")
        pictures = "table.png"
        if any(map(departures.went, found)):
            departures.draw(found, run.directory / "climbed.png")
            pictures += ", climbed.png"
        console = Console(width=120, markup=False, highlight=False)
        console.print(*(sheet.printable() for sheet in shown), sep="\n")
        console.print(f"{NOTE}\ntable: {run.directory / 'table.md'}, table.json, {pictures}")
        return True


def _plain(row: Row) -> Mapping[str, Any]:
    return {
        "subject": row.subject,
        "name": row.name,
        **(row.runs[0].choices if row.runs else {}),
        "runs": [{"directory": str(run.directory), "seed": run.seed, "effort": run.effort, "wall_s": run.wall_s} for run in row.runs],
        **{name: asdict(estimate) for name, estimate in row.estimates.items()},
    }
