"""A table of finished runs, each row the mean over seeds: `experiment=report experiment.runs=DIR`."""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib
import yaml
from rich.console import Console
from rich.table import Table

from framework.errors import ConfigError
from framework.experiment import Experiment, Run, write_json
from framework.statistics import bootstrap
from framework.types import Estimate

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_CHOICES = ("algo", "lm", "adapter", "warm_start")
_SCORES = {"score": "score, unseen wordings (test)", "score_known": "known wordings", "score_shift": "shifted world"}
_REFERENCES = {"random": "#888888", "best_constant": "#7b5ea7", "heuristic": "#b8860b", "optimum": "#1b7837"}
_LEADS = ("heuristic", "best_constant")
_NOTE = (
    "Mean over seeds [95 % bootstrap interval over seeds]; a row of one seed has the interval over that run's episodes. "
    "Score: random acts 0, optimum 1. With few seeds such intervals are too narrow."
)


@dataclass(frozen=True)
class Finished:
    """What the table needs of a run."""

    directory: Path
    world: str
    choices: Mapping[str, str]
    seed: int
    settings: Mapping[str, Any]  # of the parts a result depends on, flat
    estimates: Mapping[str, Estimate]  # by name; an outcome on recorded cases and a lead there are named (split, rival or "")
    references: Mapping[str, Mapping[str, float]]  # the same names, of every reference
    env_steps: int
    wall_s: float


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    world: str
    policy: str
    estimates: Mapping[str, Estimate]
    runs: Sequence[Finished] = ()  # none: a reference

    @property
    def seeds(self) -> str:
        """How many, in words."""
        return f"{len(self.runs)} seed{'s' * (len(self.runs) != 1)}" if self.runs else ""
