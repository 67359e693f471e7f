"""Graders that are Python: off by default, and held within limits when on."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framework.errors import ConfigError
from framework.rewards.graders import PYTHON_VARIABLE, Graded, Means, grade, read_grader, sample_of

ALLOWED = Means(python=True, python_time_limit_s=1.0)


def run(source: str, means: Means = ALLOWED) -> Graded:
    return grade(read_grader({"type": "python", "source": source, "image_tag": "2025-05-08"}), sample_of("hello"), {"answer": "hello", "n": 2}, means)


def returning(expression: str, before: str = "") -> str:
    return f"import os, sys, time\n{before}\ndef grade(sample, item):\n    return {expression}\n"


@pytest.fixture
def consent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, "1")


@pytest.mark.parametrize(("setting", "variable"), [(False, None), (True, None), (False, "1"), (True, "0"), (True, "")])
def test_consent_is_given_twice_or_not_at_all(setting: bool, variable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(PYTHON_VARIABLE, variable)
    grader, means = read_grader({"type": "python", "source": returning("1.0")}), Means(python=setting)
    for attempt in (lambda: grader.require(means), lambda: grade(grader, sample_of("x"), {}, means)):
        with pytest.raises(ConfigError, match=f"in no sandbox.*reward.python=true.*{PYTHON_VARIABLE}=1"):
            attempt()


@pytest.mark.parametrize(
    ("source", "value"),
    [
        (returning("float(sample['output_text'] == item['answer'])"), 1.0),
        (returning("item['n']"), 2.0),
        (returning("statistics.mean([1, 2])", before="import re, statistics, difflib"), 1.5),
        (returning("0.5", before="print('noise'); sys.stderr.write('noise')"), 0.5),
        (returning("float(len(os.listdir('.')))"), 4.0),  # its own source, what it is given, and where its words go
        (returning("float(len(set(os.environ) - {'LC_CTYPE'}))"), 0.0),  # Python's own
        (returning("float('site' in sys.modules) + float(any('site-packages' in path for path in sys.path))"), 0.0),
    ],
)
@pytest.mark.usefixtures("consent")
def test_what_it_returns_is_the_grade(source: str, value: float) -> None:
    assert run(source).reward == value


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (returning("'1'"), "no finite number"),
        (returning("None"), "no finite number"),
        (returning("True"), "no finite number"),
        (returning("float('nan')"), "no finite number"),
        (returning("object()"), "not JSON serializable"),
        (returning("1 / 0"), "ZeroDivisionError"),
        (returning("1.0", before="raise ValueError('at import')"), "at import"),
        ("def grade(sample, item) return 1", "SyntaxError"),
        ("x = 1", "cannot import name 'grade'"),
        (returning("os._exit(0)"), "answered with no number"),
        (returning("os._exit(3)"), "ended with 3"),
        (returning("os.kill(os.getpid(), 9)"), "ended with -9"),
        # limits
        (returning("1.0", before="while True: pass"), "had not ended after 1 s"),
        (returning("time.sleep(60)"), "had not ended after 1 s"),
        (returning("float(len(bytearray(3 * 2**30)))"), "MemoryError"),
        (returning("1.0", before="open('big', 'wb').write(bytes(64 * 2**20))"), "File too large"),
        (returning("1.0", before="os.fork()"), "Resource temporarily unavailable"),
        (returning("1.0", before="import _thread; _thread.start_new_thread(print, ())"), "start new thread"),
        (returning("1.0", before="import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))"), "not allowed to raise maximum limit"),
    ],
)
@pytest.mark.usefixtures("consent")
def test_what_goes_wrong_is_no_grade(source: str, told: str) -> None:
    graded = run(source)
    assert np.isnan(graded.reward) and told in graded.errors["python_grader_runtime_error"], graded.errors


# The published example.
WRATIO = """
from rapidfuzz import fuzz, utils

def grade(sample, item) -> float:
    output_text = sample["output_text"]
    reference_answer = item["reference_answer"]
    return fuzz.WRatio(output_text, reference_answer, processor=utils.default_process) / 100.0
"""


def allowing(*packages: str) -> Means:
    return Means(python=True, python_time_limit_s=30.0, python_packages=packages)


@pytest.mark.usefixtures("consent")
def test_the_published_example_has_the_package_that_it_imports_where_that_is_named() -> None:
    pytest.importorskip("rapidfuzz")
    grader, sample = read_grader({"type": "python", "source": WRATIO}), sample_of("Fuzzy wuzzy was a bear!")
    item = {"reference_answer": "fuzzy wuzzy had no hair"}
    grader.require(allowing("rapidfuzz"))
    assert grade(grader, sample, item, allowing("rapidfuzz")).reward == pytest.approx(34 / 45)  # 17 letters of 22 and of 23 in the same order
    for others in (allowing(), allowing("numpy")):
        assert "No module named 'rapidfuzz'" in grade(grader, sample, item, others).errors["python_grader_runtime_error"]


@pytest.mark.parametrize(
    ("source", "value"),
    [
        (returning("float(np.linalg.norm(np.random.default_rng(0).normal(size=(300, 300)) @ np.ones(300)) > 0)", before="import numpy as np"), 1.0),
        (returning("float(any('site-packages' in path for path in sys.path)) + len(set(os.environ) - {'LC_CTYPE'})"), 0.0),
        (returning("1.0", before="import yaml"), "No module named 'yaml'"),
        (returning("float(len(bytearray(3 * 2**30)))"), "MemoryError"),
        (returning("1.0", before="os.fork()"), "Resource temporarily unavailable"),
        (returning("1.0", before="import _thread; _thread.start_new_thread(print, ())"), "start new thread"),
    ],
)
@pytest.mark.usefixtures("consent")
def test_packages_compute_within_the_limits_and_bring_no_others(source: str, value: float | str) -> None:
    graded = run(source, allowing("numpy", "numpy.random"))
    told = graded.errors.get("python_grader_runtime_error", "")
    assert value in told if isinstance(value, str) else (graded.reward, told) == (value, ""), graded


@pytest.mark.parametrize("package", ["rapidfuz", "numpy.rnadom", "", "../numpy", "scikit-learn"])
@pytest.mark.usefixtures("consent")
def test_a_package_that_is_not_installed_is_told_beforehand(package: str) -> None:
    with pytest.raises(ConfigError, match=rf"reward.python_packages: no package '{re.escape(package)}' can be imported here"):
        read_grader({"type": "python", "source": returning("1.0")}).require(allowing("numpy", package))


@pytest.mark.usefixtures("consent")
def test_endless_talk_ends() -> None:
    graded = run(returning("1.0", before="while True: os.write(1, b'x' * 65536)"))
    assert np.isnan(graded.reward) and graded.errors.keys() == {"python_grader_runtime_error"}


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has nobody to become")
@pytest.mark.usefixtures("consent")
def test_root_becomes_nobody(tmp_path: Path) -> None:
    target = tmp_path / "written"
    graded = run(returning("1.0", before=f"open({str(target)!r}, 'w')"))
    assert np.isnan(graded.reward) and not target.exists()


@pytest.mark.usefixtures("consent")
def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tmp_path.chmod(0o755)
    run(returning("float(os.getpid())"))
    run(returning("time.sleep(60)"), Means(python=True, python_time_limit_s=0.3))
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("consent")
def test_its_process_is_gone_when_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    started = list[int]()

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            started.append(self.pid)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    start, told = time.monotonic(), run(returning("time.sleep(60)", before="import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"))
    assert np.isnan(told.reward) and time.monotonic() - start < 5 and len(started) == 1
    with pytest.raises(ChildProcessError):
        os.waitpid(started[0], os.WNOHANG)


def test_a_source_that_is_too_long() -> None:
    with pytest.raises(ConfigError, match="grader.source"):
        read_grader({"type": "python", "source": "#" * 256_001})
