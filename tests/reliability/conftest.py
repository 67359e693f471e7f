"""Runs for the tests to look at: in this process where the parts are the subject, in one of its own where the command line is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from runs import ROOT, SMALL, Command, Start, command_line, start_here


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
def finished(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    """The directory of a small run, finished in a process of its own; shared, so copy it before you change it."""
    directory = tmp_path_factory.mktemp("finished") / "run"
    done = command(*SMALL, f"hydra.run.dir={directory}")
    assert done.returncode == 0, done.stderr
    return directory
