"""The exact gradient and what estimates it, by the command that people type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from runs import start_here

SMALL = ("experiment=exact_gradient", "experiment.layers=2", "experiment.n_groups=2", "experiment.group_size=2", "experiment.batches=200", "threads=1")


@pytest.mark.slow
def test_every_estimator_is_held_against_the_exact_gradient(tmp_path: Path) -> None:
    start_here(tmp_path / "run", *SMALL)
    told = json.loads((tmp_path / "run" / "table.json").read_text(encoding="utf-8"))
    assert [part["policy"] for part in told] == ["a table of logits", "lm=tiny (lora)"]
    for part in told:
        assert part["exact"]["kl"] > 0 and part["exact"]["return"] < part["exact"]["optimum"] and len(part["rows"]) == 21
    table = (tmp_path / "run" / "table.md").read_text(encoding="utf-8")
    assert all(table.count(row["estimator"]) >= 2 for row in told[0]["rows"])
    assert (tmp_path / "run" / "table.png").read_bytes().startswith(b"\x89PNG")
