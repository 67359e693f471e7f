"""Data sets and weights that other packages carry: found by path, read at run time, never copied."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from framework.errors import MissingExtraError


def package_file(package: str, relative: str, extra: str) -> Path:
    """The path of a file inside an installed package, which is not imported.

    Raises:
        MissingExtraError: the package is not installed, or lacks the file; names the extra that brings it.
    """
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(root) / relative
        if path.exists():
            return path
    raise MissingExtraError(f"package {package!r} with {relative}", extra)
