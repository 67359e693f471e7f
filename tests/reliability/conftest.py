"""Runs for the tests to look at: in this process where the parts are the subject, in one of its own where the command line is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import open_dict

from framework.assemble import assemble
from framework.cli import prepare
from framework.config import CONF
from framework.experiment import Experiment, Run

ROOT = Path(__file__).resolve().parents[2]
# Seconds on any machine: few steps, few episodes, word counts for a reader.
SMALL = ("preset=smoke", "warm_start=none", "lm=tfidf", "lm.max_features=200", "policy.width=32", "threads=1", "tracker=none")
SMALL += ("algo.n_envs=8", "algo.n_steps=32", "algo.batch_size=64", "algo.total_steps=2048", "experiment.curve_points=4")

Start = Callable[..., Run]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def built_here(directory: Path, *arguments: str) -> tuple[Experiment, Run]:
    """What run.py builds from these arguments."""
    torch.set_num_threads(1)
    prepared = prepare([f"hydra.run.dir={directory}", *arguments])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=prepared, return_hydra_config=True)
    choices, overrides = dict(config.hydra.runtime.choices), list(config.hydra.overrides.task)
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


@pytest.fixture(scope="session")
def command() -> Command:
    """run.py in a process of its own."""

    def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "WANDB_MODE": "disabled", "PYTHONPATH": str(ROOT)}
        return subprocess.run(command_line(*arguments), cwd=cwd, env=environment, capture_output=True, text=True)

    return run


@pytest.fixture(scope="session")
def start() -> Start:
    """run.py's work in this process."""
    return start_here


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    """Arguments of a run that takes seconds."""
    return SMALL


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    """The directory of a small run, finished in a process of its own; shared, so copy it before you change it."""
    directory = tmp_path_factory.mktemp("finished") / "run"
    done = command(*SMALL, f"hydra.run.dir={directory}")
    assert done.returncode == 0, done.stderr
    return directory
