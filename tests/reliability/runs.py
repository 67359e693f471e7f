"""Small runs, as run.py makes them, in this process or in one of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import open_dict

from framework.assemble import assemble
from framework.cli import prepare
from framework.config import CONF
from framework.experiment import Experiment, Run

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
    return assemble(config, directory, choices, overrides, None)


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
