"""A domain comes from outside: one class, one YAML, one entry point, and no file of ours is touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has put the example; its source is copied first, because a build writes beside it."""
    source, place = tmp_path_factory.mktemp("source") / "example", tmp_path_factory.mktemp("site")
    shutil.copytree(Path(__file__).parent / "example", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(place), str(source)]
    subprocess.run(pip, check=True, capture_output=True, text=True)
    return place


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """run.py in a process of its own, which sees the packages it is told of."""

    def start(*arguments: str, packages: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, packages))}
        command = [sys.executable, "run.py", "threads=1", "tracker=none", f"hydra.run.dir={tmp_path / 'run'}", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    return start


SMALL = ("experiment=smoke", "warm_start=none", "lm=tfidf", "lm.max_features=100", "domain=example", "algo.total_steps=8192", "algo.learning_rate=3e-3")
SMALL += ("algo.n_envs=16", "algo.n_steps=16", "algo.batch_size=64", "algo.exploring_acts=1")


@pytest.mark.slow
def test_it_trains_to_a_good_score(run: Run, installed: Path, tmp_path: Path) -> None:
    done = run(*SMALL, packages=(installed,))
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["domain"] == "example" and summary["environment"] == "Coin"
    assert summary["score_known"]["mean"] > 0.95  # the words of the test split are new, and this reader only counts words


@pytest.mark.slow
def test_it_keeps_the_promises_of_a_domain(run: Run, installed: Path, tmp_path: Path) -> None:
    done = run("experiment=check_domain", "lm=tfidf", "domain=example", packages=(installed,))
    checks = json.loads((tmp_path / "run" / "checks.json").read_text())
    assert done.returncode == 0 and checks, done.stdout + done.stderr


@pytest.mark.slow
def test_a_broken_promise_fails_a_sweep_whose_other_jobs_go_on(run: Run, installed: Path, tmp_path: Path) -> None:
    tells_nothing_and_something = "domain.worlds.Coin.accuracy=0.5,0.9"
    done = run("-m", "experiment=check_domain", "lm=tfidf", "domain=example", tells_nothing_and_something, f"hydra.sweep.dir={tmp_path}", packages=(installed,))
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    kept = [all(check["passed"] for check in json.loads(file.read_text())) for file in sorted(tmp_path.rglob("checks.json"))]
    assert kept == [False, True]


@pytest.mark.slow
def test_its_settings_are_checked_like_ours(run: Run, installed: Path) -> None:
    done = run("domain=example", "domain.worlds.Coin.accuracy=2", packages=(installed,))
    assert done.returncode == 2 and "domain.worlds.Coin.accuracy: " in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_function_of_its_own_may_be_the_reward(run: Run, installed: Path, tmp_path: Path) -> None:
    done = run(*SMALL, "reward=function", "reward.function=touchstone_example.curiosity", packages=(installed,))
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["reward"] == "function" and summary["climbed"]["ledger"][-1]["reward"]["mean"] > 0.5


def test_without_it_the_menu_is_shown(run: Run, tmp_path: Path) -> None:
    done = run("domain=example")
    assert done.returncode == 2 and "there is no such domain" in done.stderr and "finance" in done.stderr
    assert not (tmp_path / "run").exists()


def test_one_that_is_broken_spoils_no_other(run: Run, installed: Path, tmp_path: Path) -> None:
    """A plug-in that raises on import, installed beside a good one: choosing ours or the good one still works."""
    broken = tmp_path / "site"
    (broken / "broken_plugin").mkdir(parents=True)
    (broken / "broken_plugin" / "__init__.py").write_text("raise RuntimeError('broken')")
    (broken / "broken_plugin-1.0.dist-info").mkdir()
    (broken / "broken_plugin-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n")
    (broken / "broken_plugin-1.0.dist-info" / "entry_points.txt").write_text(
        "[touchstone.domains]\nbroken = broken_plugin\ngone = not_installed_any_more.conf\n"
    )
    done = run("domain=example", "--cfg", "job", packages=(installed, broken))
    assert done.returncode == 0 and "touchstone_example.CoinDomain" in done.stdout, done.stderr
