"""A checkpoint is whole or absent: plain files in a directory, with a manifest of their digests, put in place by a rename."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from framework.errors import CheckpointError

_RECORD = "checkpoint.json"


def save_checkpoint(directory: Path, write: Callable[[Path], None], record: Mapping[str, Any]) -> None:
    """Writes a checkpoint beside its place and moves it there; the previous one stays whole until then.

    Args:
        directory: where the checkpoint shall be.
        write: puts files into the directory it is given.
        record: plain data to keep with them.
    """
    fresh, old = directory.with_name(f"{directory.name}.tmp-{os.getpid()}"), directory.with_name(f"{directory.name}.old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        write(fresh)
        files = {path.name: _digest(path) for path in sorted(fresh.iterdir())}
        (fresh / _RECORD).write_text(json.dumps({**record, "files": files}, indent=1), encoding="utf-8")
        for path in (*fresh.iterdir(), fresh):
            _sync(path)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    if directory.exists():
        shutil.rmtree(old, ignore_errors=True)  # not before: with no checkpoint in place, the old one is all there is
        directory.rename(old)
    fresh.rename(directory)
    _sync(directory.parent)  # the renames themselves
    for left in (old, *directory.parent.glob(f"{directory.name}.tmp-*")):  # the latter by processes killed while they saved
        shutil.rmtree(left, ignore_errors=True)


def open_checkpoint(directory: Path) -> tuple[Path, dict[str, Any]]:
    """Finds a checkpoint, checks every file against the manifest, and returns where it is and its record.

    A run directory may be given in place of the checkpoint in it.

    Raises:
        CheckpointError: there is none, or a file is missing, truncated or changed.
    """
    tried = [directory, directory / "checkpoint", directory.with_name(f"{directory.name}.old"), directory / "checkpoint.old"]
    found = next((path for path in tried if (path / _RECORD).is_file()), None)
    if found is None:
        raise CheckpointError(f"checkpoint: no {_RECORD} in {directory} or {directory / 'checkpoint'}; give a run directory or its checkpoint")
    try:
        record: dict[str, Any] = json.loads((found / _RECORD).read_text(encoding="utf-8"))
        files = record["files"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{found / _RECORD}: not a checkpoint's record ({error}); use another checkpoint") from error
    if strange := {path.name for path in found.iterdir()} - {_RECORD, *record["files"]}:
        raise CheckpointError(f"{found}: holds {', '.join(sorted(strange))}, which its record does not list; use another checkpoint")
    for name, digest in files:
        path = found / Path(name).name
        if not path.is_file():
            raise CheckpointError(f"{path}: missing, though the record lists it; use another checkpoint")
        if _digest(path) != digest:
            raise CheckpointError(f"{path}: truncated or changed since it was written (its digest differs from the record); use another checkpoint")
    return found, record


def left_by(run: Path) -> dict[str, Any] | None:
    """The record of what a run has left in its directory, if it says whether it was finished; None: there is nothing to go on with.

    Raises:
        CheckpointError: what it left is damaged.
    """
    if not any((run / name / _RECORD).is_file() for name in ("checkpoint", "checkpoint.old")):
        return None
    _, record = open_checkpoint(run)
    return record if "finished" in record else None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
