"""A checkpoint is whole or absent: whenever the process dies, whatever fails, what can be opened is what was written."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from framework.checkpoint import open_checkpoint, save_checkpoint
from framework.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[2]
FILES = ("policy.safetensors", "training.json")


def save(directory: Path, version: int, size: int = 100) -> None:
    """A checkpoint that says everywhere which version it is."""

    def write(place: Path) -> None:
        for name in FILES:
            (place / name).write_bytes(version.to_bytes(4, "big") * size)

    save_checkpoint(directory, write, {"version": version, "size": size})


def opened(directory: Path) -> int:
    """The version that is found, all of a piece."""
    found, record = open_checkpoint(directory)
    for name in FILES:
        assert (found / name).read_bytes() == record["version"].to_bytes(4, "big") * record["size"]
    return int(record["version"])


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def dies_at(step: int, act: Callable[[], None]) -> bool:
    """Does something in a child that ends, as if killed, just before its n-th operation on the file system; whether it got so far."""
    child = os.fork()
    if child == 0:
        left = itertools.count(step, -1)

        def count(event: str, _: tuple[Any, ...]) -> None:
            if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree") and next(left) == 0:
                os._exit(1)

        sys.addaudithook(count)
        try:
            act()
            os._exit(0)
        finally:
            os._exit(2)  # an error must not go on as a second pytest
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 1), "it failed of itself"
    return code == 1


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A directory where `fsync` is quick, if there is one: for thousands of small files."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)


@pytest.mark.slow
def test_a_death_before_any_operation_leaves_a_whole_one(tmp_path: Path) -> None:
    place = tmp_path / "run" / "checkpoint"
    for step in itertools.count():
        save(place, 0)
        died = dies_at(step, lambda: save(place, 1))
        assert opened(place) in (0, 1) and opened(tmp_path / "run") == opened(place)
        if not died:
            break
    assert step > 10 and opened(place) == 1


@pytest.mark.slow
def test_two_deaths_in_a_row_leave_a_whole_one(memory: Path) -> None:
    """The first strikes while a checkpoint is put in place, the second at any time in a save that finds what is left."""
    operations = next(step for step in itertools.count() if not dies_at(step, lambda: save(memory / "count" / "checkpoint", 1)))
    for first in range(operations - 8, operations):
        once = memory / f"{first}"
        save(once / "checkpoint", 0)
        dies_at(first, lambda: save(once / "checkpoint", 1))  # noqa: B023
        for second in range(operations + 8):
            twice = memory / f"{first}-{second}"
            shutil.copytree(once, twice)
            dies_at(second, lambda: save(twice / "checkpoint", 2))  # noqa: B023
            assert opened(twice / "checkpoint") in (0, 1, 2), (first, second)


@pytest.mark.slow
def test_sigkill_at_random_times(tmp_path: Path) -> None:
    """A child saves ever larger checkpoints to one place and is killed, twenty-five times."""
    place, rng = tmp_path / "run" / "checkpoint", random.Random(0)
    code = (
        "import itertools, sys; from pathlib import Path; from test_checkpoint import save\n"
        "for version in itertools.count(int(sys.argv[2])): save(Path(sys.argv[1]), version, size=2000 * version % 500_000 + 1)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"}
    save(place, 0)
    versions = [0]
    for _ in range(25):
        child = subprocess.Popen([sys.executable, "-c", code, str(place), str(versions[-1] + 1)], env=environment)
        end = time.monotonic() + 30
        while opened_meanwhile(place) == versions[-1] and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))
        child.send_signal(signal.SIGKILL)
        child.wait()
        versions.append(opened(place))
    assert versions == sorted(versions) and len(set(versions)) == len(versions)


def opened_meanwhile(place: Path) -> int:
    """Which version there is while another process writes; -1 where a reader came between two renames."""
    try:
        return int(open_checkpoint(place)[1]["version"])
    except (CheckpointError, OSError):
        return -1


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()], ids=lambda failure: type(failure).__name__)
def test_a_failure_while_writing_leaves_the_previous_one_and_no_debris(tmp_path: Path, failure: BaseException) -> None:
    def write(place: Path) -> None:
        (place / FILES[0]).write_bytes(b"half of it")
        raise failure

    save(tmp_path / "checkpoint", 7)
    with pytest.raises(type(failure)):
        save_checkpoint(tmp_path / "checkpoint", write, {})
    assert opened(tmp_path / "checkpoint") == 7 and names(tmp_path) == ["checkpoint"]


def test_what_a_killed_process_left_is_cleared_by_the_next_save(tmp_path: Path) -> None:
    save(tmp_path / "checkpoint", 1)
    dies_at(8, lambda: save(tmp_path / "checkpoint", 2))
    assert len(names(tmp_path)) > 1, "it should have died with a part written"
    save(tmp_path / "checkpoint", 3)
    assert names(tmp_path) == ["checkpoint"] and opened(tmp_path / "checkpoint") == 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs rights that this process has not")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_leaves_the_previous_one(small_disk: Path) -> None:
    save(small_disk / "checkpoint", 1)
    with pytest.raises(OSError, match="No space"):
        save(small_disk / "checkpoint", 2, size=50_000)
    assert opened(small_disk / "checkpoint") == 1 and names(small_disk) == ["checkpoint"]
    save(small_disk / "checkpoint", 3)
    assert opened(small_disk / "checkpoint") == 3


def test_a_run_directory_stands_for_its_checkpoint(tmp_path: Path) -> None:
    save(tmp_path / "run" / "checkpoint", 5)
    assert open_checkpoint(tmp_path / "run") == open_checkpoint(tmp_path / "run" / "checkpoint")


def test_another_runs_old_checkpoint_is_not_taken(tmp_path: Path) -> None:
    save(tmp_path / "run.old" / "checkpoint", 5)  # a run that someone put aside under this name
    with pytest.raises(CheckpointError, match="no checkpoint.json"):
        open_checkpoint(tmp_path / "run")
