"""Runs the conformance kit on a world: `python run.py experiment=check_domain domain=... domain.environment=...`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from framework.conformance import Check, check_domain
from framework.experiment import Experiment, Run
from framework.interfaces import Algorithm, Domain, Tuning


class CheckDomain(Experiment):
    """Prints every promise of a domain with what was measured, and writes `checks.json`."""

    def needs(self, algorithm: Algorithm | Tuning) -> Mapping[str, type]:
        """See `Experiment`."""
        return {"domain": Domain}

    def run(self, run: Run) -> bool:
        """Returns whether all promises are kept."""
        domain = run.domain
        checks = check_domain(domain, timed=True)
        Console().print(_table(f"{domain.name}/{domain.environment}", checks))
        (run.directory / "checks.json").write_text(json.dumps([dataclasses.asdict(check) for check in checks], indent=2) + "\n", encoding="utf-8")
        return all(check.passed for check in checks)


def _table(title: str, checks: list[Check]) -> Table:
    table = Table("check", "", "detail", title=title)
    for check in checks:
        # as Text, so that brackets in a detail are not read as markup
        table.add_row(check.name, Text("pass", "green") if check.passed else Text("FAIL", "bold red"), Text(check.detail))
    return table
