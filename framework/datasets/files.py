"""Opens a file of training data: is it there, is it what its name says, can its letters be read; then hands it to its reader."""

from __future__ import annotations

import codecs
import errno
import hashlib
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from framework.datasets.faults import Faults
from framework.datasets.layout import Layout, Row
from framework.datasets.readers import Rows, read_csv, read_json_array, read_json_lines, read_parquet
from framework.errors import DataError, near

KINDS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".parquet": "parquet",
}
_MARKS = {  # how files of other kinds begin
    b"PAR1": ("Parquet", "Name it .parquet"),
    b"\x1f\x8b": ("gzip", "Unpack it first: gunzip FILE"),
    b"PK\x03\x04": ("a zip archive or an Excel workbook", "Unpack it first, or save it as CSV"),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook", "Save it as CSV"),
    b"BZh": ("bzip2", "Unpack it first: bunzip2 FILE"),
    b"\xfd7zXZ": ("xz", "Unpack it first: unxz FILE"),
    b"\x28\xb5\x2f\xfd": ("zstd", "Unpack it first: unzstd FILE"),
    b"ARROW1": ("an Arrow file", "Save it as Parquet"),
    b"%PDF": ("PDF", "Save its text as CSV"),
}
_WIDE = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_CHUNK = 2**20


@dataclass(frozen=True)
class Format:
    """How a file is to be read.

    Attributes:
        encoding: of text files.
        delimiter: of CSV, by name; None: a comma, or a tab in a .tsv file.
        max_megabytes: size of a file beyond which it is refused.
    """

    encoding: str
    delimiter: str | None
    max_megabytes: float


@dataclass(frozen=True)
class File(Generic[Row]):
    """What was read."""

    rows: Sequence[Row]
    digest: str  # SHA-256 of the bytes


def read(path: Path, how: Format, layout: Layout[Row]) -> File[Row]:
    """Reads a file whole, every row checked.

    Raises:
        DataError: it cannot be opened, or has faults: all of them at once.
        MissingExtraError: it is Parquet, and pyarrow is not installed.
    """
    sort = _inspect(path, how.max_megabytes, layout)
    digest = _digest(path, None if sort == "parquet" else how.encoding)
    faults = Faults(path, "row" if sort == "parquet" else "line")
    rows = [found for number, row in _rows(path, sort, how, layout, faults) if (found := layout.row(number, row, faults))]
    if not rows and not faults.found:
        faults.add(0, "", "has 0 rows", f"Add rows with {layout.content}")
    faults.check()
    return File(rows, digest)


def _rows(path: Path, sort: str, how: Format, layout: Layout[Any], faults: Faults) -> Rows:
    """The rows of a file, by its kind."""
    if sort == "parquet":
        yield from read_parquet(path, layout, faults)
        return
    encoding = "utf-8-sig" if codecs.lookup(how.encoding).name == "utf-8" else how.encoding  # passes over a byte order mark
    with path.open(encoding=encoding, newline="" if sort == "csv" else "\n") as file:
        if sort == "csv":
            delimiter = how.delimiter or ("tab" if path.suffix.lower() == ".tsv" else "comma")
            yield from read_csv(_plain(file, faults), delimiter, layout, faults)
        elif path.suffix.lower() == ".json" and (text := file.read()).lstrip().startswith("["):
            yield from read_json_array(text, layout, faults)
        else:
            file.seek(0)
            yield from read_json_lines(_plain(file, faults), layout, faults)


def _plain(lines: Iterable[str], faults: Faults) -> Iterable[str]:
    """The same lines without NUL bytes, which are faults."""
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            faults.add(number, "", "holds a NUL byte", "Remove it; a file full of them is UTF-16: set data.encoding=utf-16-le")
        yield line.replace("\0", "")


def _inspect(path: Path, max_megabytes: float, layout: Layout[Any]) -> str:
    """The kind of a file, by its name, once it is known to be a file of that kind and of a fair size.

    Raises:
        DataError: otherwise.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: is {'a folder' if path.is_dir() else 'no plain file'}. Name a file{near(path.name, _readable(path))}")
        with path.open("rb") as file:
            start = file.read(8)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {_why(path, error)}") from error
    if (sort := KINDS.get(path.suffix.lower())) is None:
        raise DataError(f"{path}: is of a kind that is not read. Name it by what it holds: {', '.join(KINDS)}")
    if not status.st_size:
        raise DataError(f"{path}: the file is empty. Add rows with {layout.content}")
    if status.st_size > max_megabytes * 1e6:
        raise DataError(
            f"{path}: has {status.st_size / 1e6:.1f} MB, over {max_megabytes:g}. Set data.max_megabytes higher, if memory allows several times as much"
        )
    mark = next((mark for mark in _MARKS if start.startswith(mark)), None)
    if mark and not (mark == b"PAR1" and sort == "parquet"):
        raise DataError(f"{path}: is {_MARKS[mark][0]}, whatever its name says. {_MARKS[mark][1]}")
    if sort == "parquet" and not mark:
        raise DataError(f"{path}: is no Parquet file, whatever its name says. Name it by what it holds: {', '.join(KINDS)}")
    if sort == "csv" and start.lstrip(codecs.BOM_UTF8 + b" \r\n").startswith(b'{"'):
        raise DataError(f"{path}: holds JSON, whatever its name says. Name it .jsonl")
    return sort


def _why(path: Path, error: OSError | ValueError) -> str:
    """Why a file cannot be opened, and a way out."""
    if isinstance(error, FileNotFoundError):
        return f"no such file{near(path.name, _readable(path.parent))}" if path.parent.is_dir() else f"there is no folder {path.parent}. Correct the path"
    if isinstance(error, PermissionError):
        return f"may not be read. Allow it: chmod u+r {path}"
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "is a symbolic link that leads to itself. Name the file it was to lead to"
    return f"cannot be opened: {getattr(error, 'strerror', None) or error}. Correct the path"


def _readable(folder: Path) -> list[str]:
    """Names of files in a folder that could be read, a few of them."""
    try:
        return sorted(path.name for path in folder.iterdir() if path.suffix.lower() in KINDS)[:50]
    except OSError:
        return []


def _digest(path: Path, encoding: str | None) -> str:
    """SHA-256 of a file, once its bytes are known to be text in the encoding.

    Raises:
        DataError: they are not; names the offset of the first byte that is wrong.
    """
    sha = hashlib.sha256()
    decoder, at, line = encoding and codecs.getincrementaldecoder(encoding)(), 0, 1
    with path.open("rb") as file:
        while True:
            chunk = file.read(_CHUNK)
            sha.update(chunk)
            if decoder:
                pending = decoder.getstate()[0]
                try:
                    decoder.decode(chunk, final=not chunk)
                except UnicodeError as error:
                    offset = at - len(pending) + getattr(error, "start", 0)
                    line += (pending + chunk)[: getattr(error, "start", 0)].count(b"\n")
                    raise DataError(f"{path}: line {line}: byte {offset} is not {encoding}. {_another_encoding(path, str(encoding))}") from error
            if not chunk:
                return sha.hexdigest()
            at, line = at + len(chunk), line + chunk.count(b"\n")


def _another_encoding(path: Path, encoding: str) -> str:
    """What to try where an encoding does not fit."""
    with path.open("rb") as file:
        start = file.read(2)
    if start in _WIDE:
        return f"The file begins as UTF-16 does: set data.encoding={_WIDE[start]}, or save it as UTF-8"
    return "Save it as UTF-8, or say what it is: data.encoding=" + ("cp1252 (Excel on Windows)" if codecs.lookup(encoding).name == "utf-8" else "utf-8")
