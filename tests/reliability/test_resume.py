"""A run that was stopped and resumed is the run that was not, bit for bit."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import QUICK, ROOT, SMALL, Command, built_here, command_line, start_here
from safetensors.torch import load_file

from framework.errors import UserError
from framework.experiment import Interrupted, Stop
from framework.interfaces import Algorithm, Learning, Policy, World

pytestmark = pytest.mark.slow


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "checkpoint" / "policy.safetensors")


def metrics(directory: Path) -> dict[int, dict[str, float]]:
    """All that was logged at each step, but for the clock; a resumed run looks once more at the step it goes on from."""
    told: dict[int, dict[str, float]] = {}
    for line in (directory / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        step, _ = entry.pop("step"), entry.pop("wall_s")
        for name, value in entry.items():
            if not name.startswith("time/"):
                assert told.setdefault(step, {}).setdefault(name, value) == value, f"{name} at step {step} was told twice, differently"
    return told


def same(one: Path, other: Path) -> None:
    """Nothing tells the two runs apart: neither their weights nor their metrics nor what they came to."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys() and not [name for name in first if not torch.equal(first[name], second[name])]
    assert metrics(one) == metrics(other)
    summaries = [json.loads((directory / "summary.json").read_text()) | {"wall_s": 0} for directory in (one, other)]
    assert summaries[0] == summaries[1]


class Impatient(Algorithm):
    """Learns, but raises a signal at the n-th report, as a person at a keyboard may at any time."""

    def __init__(self, algorithm: Algorithm, after: int, number: int = signal.SIGINT) -> None:
        self.inner, self.left, self.number, self.total_steps = algorithm, after, number, algorithm.total_steps
        self.save = algorithm.save  # type: ignore[method-assign]
        self.constrained = algorithm.constrained  # type: ignore[misc]

    def learn(self, policy: Policy, make_world: Callable[[], World], run: Learning) -> None:
        def progress(env_steps: int, told: Mapping[str, float]) -> bool:
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(self.number)
            return run.progress(env_steps, told)

        self.inner.learn(policy, make_world, replace(run, progress=progress))


def interrupted(directory: Path, after: int, *arguments: str) -> Interrupted:
    """A run that gets a signal."""
    experiment, run = built_here(directory, *arguments)
    run.parts["algo"] = Impatient(run.algorithm, after)  # type: ignore[index]
    with pytest.raises(Interrupted) as raised:
        experiment.run(run)
    run.tracker.close()
    return raised.value


def of(algorithm: str) -> list[str]:
    """A small run by an algorithm, without the settings that it does not have."""
    lacking = {"a2c": ["algo.batch_size"], "dqn": ["algo.n_steps"]}.get(algorithm, [])
    return [f"algo={algorithm}", *(argument for argument in SMALL if argument.split("=")[0] not in lacking)]


@pytest.mark.parametrize("after", [1, 5, 9], ids=["at the start", "on the way", "at the end"])
def test_ppo_resumed_is_ppo(after: int, tmp_path: Path, uninterrupted: Path) -> None:
    assert [step for step, told in metrics(uninterrupted).items() if "rollout/return" in told] == list(range(256, 2049, 256))
    interrupted(tmp_path / "halves", after, *SMALL)
    start_here(tmp_path / "unused", f"resume={tmp_path / 'halves'}")
    same(uninterrupted, tmp_path / "halves")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run as the interrupted ones."""
    directory = tmp_path_factory.mktemp("uninterrupted")
    start_here(directory, *SMALL)
    return directory


@pytest.mark.parametrize(
    "arguments",
    [
        [*of("a2c"), "algo.total_steps=16384", "algo.n_steps=8"],
        of("trpo"),
        [*QUICK, *of("ppo_lagrangian")],
        # a cache so small that lines are dropped and read again
        [
            *SMALL,
            "algo.exploring_starts=1.0",
            "algo.critic_warmup=0.6",
            "algo.normalize_reward=false",
            "algo.target_kl=0.001",
            "algo.kl_coef=0.1",
            "policy.cache=40",
        ],
        [*(argument for argument in SMALL if not argument.startswith("warm_start")), "warm_start.demonstrations=1024", "warm_start.epochs=1"],
        ["preset=smoke", "warm_start=none", "lm.layers=[1]", "tracker=none", "threads=1", "algo.n_envs=8", "algo.n_steps=32", "algo.batch_size=64"]
        + ["algo.total_steps=1024", "experiment.curve_points=4"],
        ["preset=smoke", "warm_start=none", "lm.layers=[1]", "adapter=lora", "tracker=none", "threads=1", "algo.n_envs=8", "algo.n_steps=8"]
        + ["algo.batch_size=64", "algo.total_steps=320", "experiment.curve_points=2"],
    ],
    ids=["a2c", "trpo", "ppo_lagrangian", "unusual", "warm", "minilm", "lora"],
)
def test_others_resumed_are_themselves(arguments: list[str], tmp_path: Path) -> None:
    start_here(tmp_path / "whole", *arguments)
    interrupted(tmp_path / "halves", 3, *arguments)
    start_here(tmp_path / "unused", f"resume={tmp_path / 'halves'}")
    same(tmp_path / "whole", tmp_path / "halves")


def test_a_run_may_be_stopped_twice(tmp_path: Path, uninterrupted: Path) -> None:
    interrupted(tmp_path / "parts", 3, *SMALL)
    interrupted(tmp_path / "parts", 3, f"resume={tmp_path / 'parts'}")
    start_here(tmp_path / "unused", f"resume={tmp_path / 'parts'}")
    same(uninterrupted, tmp_path / "parts")


def test_dqn_resumed_goes_on_with_a_new_memory(tmp_path: Path) -> None:
    arguments = [*of("dqn"), "algo.total_steps=12288", "algo.learning_starts=500", "algo.buffer_size=2000"]
    interrupted(tmp_path / "halves", 2, *arguments)
    start_here(tmp_path / "unused", f"resume={tmp_path / 'halves'}")
    assert json.loads((tmp_path / "halves" / "summary.json").read_text())["env_steps"] == 12_288


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path: Path, uninterrupted: Path) -> None:
    """No signal handler, no last word: what counts is the checkpoint that was kept on the way."""
    experiment, run = built_here(tmp_path / "killed", *SMALL)
    run.parts["algo"] = Impatient(run.algorithm, 5, signal.SIGUSR2)  # type: ignore[index]
    signal.signal(signal.SIGUSR2, lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        experiment.run(run)
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    run.tracker.close()
    start_here(tmp_path / "unused", f"resume={tmp_path / 'killed'}")
    first, second = weights(uninterrupted), weights(tmp_path / "killed")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_to_the_process(number: int, code: int, tmp_path: Path, uninterrupted: Path, command: Command) -> None:
    """Exit code as a shell expects it, and a line to paste; what is pasted ends where the uninterrupted run did."""
    directory = tmp_path / "run"
    child = subprocess.Popen(command_line(*SMALL, f"hydra.run.dir={directory}"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while time.monotonic() < end and child.poll() is None and not steps_logged(directory) >= 256:
        time.sleep(0.02)
    child.send_signal(number)
    out, err = child.communicate(timeout=120)
    assert child.returncode == code and f"python run.py resume={directory}" in out and "Traceback" not in err, (child.returncode, out, err)
    done = command(f"resume={directory}", f"hydra.run.dir={tmp_path / 'hydra'}")
    assert done.returncode == 0, done.stderr
    same(uninterrupted, directory)


def steps_logged(directory: Path) -> int:
    """How far a running process has come."""
    path = directory / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else -1


@pytest.mark.parametrize("changed", ["algo.learning_rate=1e-2", "seed=7"])
def test_a_run_is_not_resumed_as_another(changed: str, tmp_path: Path) -> None:
    """Settings that shape the run may not change half-way without a word."""
    interrupted(tmp_path / "run", 2, *SMALL)
    with pytest.raises(UserError, match=changed.split("=")[0]):
        start_here(tmp_path / "unused", f"resume={tmp_path / 'run'}", changed)


def test_a_second_signal_ends_at_once() -> None:
    code = (
        "import os, signal\nfrom framework.experiment import Stop\nwith Stop():\n    for _ in range(2): os.kill(os.getpid(), signal.SIGINT)\n    print('never')"
    )
    done = subprocess.run([command_line()[0], "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 130 and "never" not in done.stdout


def test_signal_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Stop() as stop:
        signal.raise_signal(signal.SIGTERM)
    assert stop.exit_code == 143 and signal.getsignal(signal.SIGINT) is before


def test_a_sweep_that_is_begun_again_goes_on(command: Command, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    settings = [*QUICK, *SMALL, f"hydra.sweep.dir={sweep}", "algo.total_steps=1024"]
    start_here(tmp_path / "whole", *settings, "seed=1")
    assert command(*settings, "-m", "seed=0").returncode == 0
    process = subprocess.Popen(command_line(*settings, "seed=0,1", "-m"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not (sweep / "1" / "checkpoint").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    told = process.communicate()[0]
    if "stopped" in told:  # it may have been too late for that
        assert process.returncode == 130 and f"hydra.sweep.dir={sweep}" in told
    before = (sweep / "0" / "summary.json").stat().st_mtime_ns
    done = command("-m", *settings, "seed=0,1")
    assert done.returncode == 0 and f"finished before: {sweep / '0'}" in done.stdout
    assert (sweep / "0" / "summary.json").stat().st_mtime_ns == before
    same(tmp_path / "whole", sweep / "1")
    other = command("-m", *settings, "seed=0,1", "algo.n_epochs=2")
    assert other.returncode != 0 and re.search(r"of another configuration: algo.n_epochs is .* there and 2 here.*another folder", other.stdout + other.stderr)
