"""Small runs, as run.py makes them, in this process or in one of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hydra import compose, initialize_config_dir
from omegaconf import open_dict

from framework.assemble import assemble
from framework.cli import prepare
from framework.config import CONF, build_domain, to_dict
from framework.experiment import Experiment, Run
from framework.interfaces import Domain

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("domain=healthcare", "domain.environment=NewbornTriage")  # a world whose optimum is found in a second, and takes little memory
# Seconds on any machine: few steps, few episodes, word counts for a reader.
SMALL = ("experiment=smoke", "warm_start=none", "lm=tfidf", "lm.max_features=200", "policy.width=32", "threads=1", "tracker=none")
SMALL += ("algo.n_envs=8", "algo.n_steps=32", "algo.batch_size=64", "algo.total_steps=2048", "experiment.curve_points=4")

Start = Callable[..., Run]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def built_here(directory: Path, *arguments: str) -> tuple[Experiment, Run]:
    """What run.py builds from these arguments."""
    prepared = prepare([f"hydra.run.dir={directory}", *arguments])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=prepared, return_hydra_config=True)
    choices, overrides = dict(config.hydra.runtime.choices), [argument for argument in prepared if not argument.startswith("hydra.")]
    with open_dict(config):
        del config["hydra"]
    directory.mkdir(parents=True, exist_ok=True)
    with patch("framework.assemble.build_domain", _domain):
        return assemble(config, directory, choices, overrides, None)


def _domain(node: Mapping[str, Any]) -> Domain:
    """What was solved for the last run is solved for the next one, if that is in the same world; to solve it takes longer than most of these runs."""
    return solved_domain(json.dumps(to_dict(node)))


@lru_cache(maxsize=1)
def solved_domain(settings: str) -> Domain:
    """The domain that these settings build."""
    domain: Domain = build_domain(json.loads(settings))
    return domain


def start_here(directory: Path, *arguments: str) -> Run:
    """What run.py does with these arguments, without its process and its handling of errors."""
    experiment, run = built_here(directory, *arguments)
    try:
        experiment.run(run)
    finally:
        run.tracker.close()
    return run


def command_line(*arguments: str) -> list[str]:
    """A real one."""
    return [sys.executable, str(ROOT / "run.py"), *arguments]
