"""Graders that are Python: `grade(sample, item) -> float`, run in a process of its own.

**This is no sandbox.** The process has limits (processor time, memory, file size, processes, wall clock), an empty environment, an empty
directory and no packages beyond Python's own; it can still read what its user may read, and reach the network. Run sources that you do not
trust in a container or virtual machine. That is why they are off until a setting and an environment variable both say otherwise.

A further setting, `python_packages`, names installed packages that sources may import too. It widens what a source can do by all that they can do, within
the limits; they themselves are imported before any limit holds, by root as root, so name only those that you would run here yourself. That is done for each
sample, and its time and memory count. What a package imports only when it is asked for is named too (`numpy.random`), since nobody may be unable to read it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from framework.errors import ConfigError
from framework.rewards.graders.grading import GradeError, Grader, Means, require_python

_MEMORY = 2 * 2**30  # bytes, as published
_FILE = 16 * 2**20  # bytes of any file that is written
_NOBODY = 65534
# Sets the limits before the source is read; they hold for all that follows. Root becomes nobody, since root could write anywhere and no limit
# on processes binds it; nobody may be unable to read a Python that is root's own, so what graders are wont to use is imported before. So are packages:
# the places where they lie are searched for no longer than that takes, and numeric libraries begin no threads, of which the limits allow none.
_CHILD = """
import json, os, resource, sys
seconds, memory, size, nobody = map(int, sys.argv[1:5])
packages, places = map(json.loads, sys.argv[5:])
if packages:
    import importlib
    own, sys.path[:] = sys.path[:], places
    single = {name + "_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL", "BLIS", "NUMEXPR")}
    os.environ.update(single)
    for package in packages:
        importlib.import_module(package)
    for name in single:
        del os.environ[name]
    sys.path[:] = own
if os.geteuid() == 0:
    import bisect, collections, dataclasses, datetime, decimal, difflib, fractions, functools, heapq, itertools, math, operator, random, re
    import statistics, string, textwrap, typing, unicodedata
    try:
        os.setgroups([]); os.setgid(nobody); os.setuid(nobody)
    except OSError:
        pass
limits = {"CPU": seconds, "AS": memory, "FSIZE": size, "NPROC": 1, "CORE": 0, "NOFILE": 64}
for name, most in limits.items():
    resource.setrlimit(getattr(resource, "RLIMIT_" + name), (most, most))
given = json.load(sys.stdin)
sys.stdout, answers = sys.stderr, sys.stdout
sys.path.insert(0, os.getcwd())
from grader import grade
answers.write(json.dumps({"result": grade(given["sample"], given["item"])}))
answers.flush()
"""


class PythonGrader(Grader):
    """What a function `grade(sample, item)` returns.

    Source below 256 kB. `image_tag` is accepted and names nothing here: the source has Python's standard library, and the packages of `python_packages`.
    """

    type: Literal["python"]
    source: str = Field(max_length=256_000)
    image_tag: str | None = None

    def require(self, means: Means) -> None:
        """See `Grader`."""
        require_python(means)
        for package in means.python_packages:
            if not _is_installed(package):
                told = f"no package {package!r} can be imported here; install it, or leave it out (name it as it is imported)"
                raise ConfigError("reward.python_packages", told)

    def grade(self, sample: Mapping[str, Any], item: Mapping[str, Any], means: Means) -> float:
        """See `Grader`."""
        require_python(means)
        with tempfile.TemporaryDirectory(prefix="grader-", ignore_cleanup_errors=True) as folder:
            place = Path(folder)
            (place / "grader.py").write_text(self.source, encoding="utf-8")
            (place / "given.json").write_text(json.dumps({"sample": sample, "item": item}), encoding="utf-8")
            place.chmod(0o777)
            answered = _run(place, means.python_time_limit_s, means.python_packages)
            try:
                result = json.loads(answered)["result"]
            except (ValueError, LookupError, TypeError) as error:
                raise GradeError("python_grader_runtime_error", "it answered with no number") from error
        if isinstance(result, bool) or not isinstance(result, (int, float)) or not math.isfinite(result):
            raise GradeError("python_grader_runtime_error", f"grade returned {result!r}, which is no finite number")
        return float(result)


def _is_installed(package: str) -> bool:
    """Whether a package, or a module within one, can be imported by that name."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # of no name at all, too
        return False


def _run(place: Path, seconds: float, packages: Sequence[str]) -> str:
    """What the child wrote, if it ended well in time; its whole group of processes is ended in any case."""
    limits = [math.ceil(seconds) + 1, _MEMORY, _FILE, _NOBODY]
    places = [folder for folder in sys.path if Path(folder).is_absolute()] if packages else []
    command = [sys.executable, "-I", "-S", "-B", "-c", _CHILD, *map(str, limits), json.dumps(list(packages)), json.dumps(places)]
    said, complained = place / "said.txt", place / "complained.txt"  # files, so that the limit on their size holds
    with (place / "given.json").open("rb") as given, said.open("wb") as out, complained.open("wb") as err:
        child = subprocess.Popen(command, cwd=place, env={}, stdin=given, stdout=out, stderr=err, start_new_session=True)
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise GradeError("python_grader_runtime_error", f"it had not ended after {seconds:g} s") from error
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if code != 0:
        last = _tail(complained).strip().splitlines()[-1:] or [f"ended with {code}"]
        raise GradeError("python_grader_runtime_error", last[0][:200])
    return _tail(said)


def _tail(path: Path) -> str:
    """The last bytes of a file: of an answer all, of a traceback its end."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4_096))
        return file.read().decode("utf-8", errors="replace")
