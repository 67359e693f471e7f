"""A study of over-optimisation from a real command line: whole, gone on with, and refused where it would mix two."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from runs import QUICK, built_here, start_here

from framework.errors import CheckpointError, ConfigError
from framework.lm.read_once import ReadOnce
from framework.lm.tfidf import TfidfEncoder

SMALL = (*QUICK, "experiment=overoptimization", "threads=1", "reward.members=2", "reward.shape.width=8", "experiment.starts=2", "experiment.trajectories=64")
SMALL += ("~experiment.teachers.mistaken", "~experiment.teachers.crowd")
TINY = (*SMALL, "lm=tfidf", "lm.max_features=100", "reward.fitting.epochs=2", "experiment.pairs=[64,128]", "experiment.seeds=2", "experiment.shapes=[linear]")


@pytest.mark.slow
def test_a_half_finished_grid_goes_on_to_the_same_table(tmp_path: Path) -> None:
    start_here(tmp_path, *TINY)
    table, cells = (tmp_path / "table.json").read_text(), sorted((tmp_path / "cells").iterdir())
    assert len(cells) == 4
    kept = cells[1].stat().st_mtime_ns
    for cell in cells[2:]:
        cell.unlink()
    (tmp_path / "table.json").unlink()
    start_here(tmp_path, *TINY)
    assert (tmp_path / "table.json").read_text() == table and cells[1].stat().st_mtime_ns == kept
    told = json.loads(table)
    scorers = {row["scorer"] for row in told["rows"]}
    assert scorers == {"single", "mean", "worst", "uncertainty_weighted", "lower_confidence_bound"}
    ceiling = told["controls"]["gold"]["gold"]
    assert all(gold["mean"] <= best + 1e-9 for row in told["rows"] for gold, best in zip(row["climb"]["gold"], ceiling, strict=True))
    assert {"table.md", "report.html", "learning_curve.png"} <= {path.name for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match="holds another study: experiment.wander"):
        start_here(tmp_path, *TINY, "experiment.wander=0.5")


@pytest.mark.slow
def test_mistakes_are_told_before_anything_is_played(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="its style_bias=0"):
        built_here(tmp_path, *TINY, "experiment.teachers.raters.style_bias=0.5")
    with pytest.raises(ConfigError, match="nobody of this name can play"):
        start_here(tmp_path, *TINY, "+experiment.behaviours.nobody=1")
    with pytest.raises(ConfigError, match="TfidfEncoder has no layers that an adapter could tune"):
        start_here(tmp_path, *TINY, "experiment.shapes=[lora]")


@pytest.mark.slow
def test_a_reward_whose_reader_learns_is_one_more_size(tmp_path: Path) -> None:
    one = (*SMALL, "lm=minilm", "lm.layers=[1]", "lm.dtype=float32", "lm.mask=0", "experiment.pairs=[64]", "experiment.seeds=1")
    start_here(tmp_path, *one, "experiment.shapes=[mlp,lora]", "reward.fitting.epochs=4", "reward.shape.dropout=0")
    told = json.loads((tmp_path / "table.json").read_text())
    golds = {row["shape"]: [gold["mean"] for gold in row["climb"]["gold"]] for row in told["rows"] if row["scorer"] == "single"}
    assert golds.keys() == {"mlp", "lora"} and golds["mlp"] != golds["lora"]


def test_lines_are_read_once() -> None:
    reader = TfidfEncoder(10)
    once = ReadOnce(reader, torch.device("cpu"), ["good day", "bad day"])
    first = once.encode(once.tokens(["good day", "bad day", "good day"]))
    read: list[int] = []
    reader.encode = lambda tokens: read.append(len(tokens)) or torch.zeros(len(tokens), 1, 10)  # type: ignore[method-assign,func-returns-value]
    assert torch.equal(once.encode(once.tokens(["bad day"]))[0], first[1]) and not read
    once.fit(["other lines"])
    assert torch.equal(first[0], first[2]) and once.shape == (1, 10)
