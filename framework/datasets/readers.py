"""Readers of CSV, JSON Lines, JSON arrays and Parquet: each yields where a row stands and what it holds, and notes what it cannot read.

Lines are counted as an editor counts them, also where a quoted text runs over several. Nothing is guessed: no text is taken for a
missing value or a number, and no row is moved to other columns.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from framework.datasets.faults import Faults
from framework.datasets.layout import Layout
from framework.errors import MissingExtraError, near

MAX_TEXT = 2**20  # characters of one text
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}

Rows = Iterator[tuple[int, Mapping[str, Any]]]


def read_csv(text: Iterable[str], delimiter: str, layout: Layout[Any], faults: Faults) -> Rows:
    """Rows of a CSV file with a header.

    Args:
        text: physical lines with their ends.
        delimiter: a name in `DELIMITERS`.
        layout: what rows hold.
        faults: takes what cannot be read.
    """
    lines = _Lines(text)
    first = next((line for line in lines if not line.isspace()), "")
    if (other := _other_delimiter(first, delimiter, layout)) is not None:
        faults.add(lines.number, "", f"the columns are separated by a {other}, not by a {delimiter}", f"Set data.delimiter={other}")
        return
    lines.rewind(0)
    records = ((number, cells) for number, cells in _records(lines, DELIMITERS[delimiter], faults) if len(cells) > 1 or "".join(cells).strip())
    number, header = next(records, (0, []))
    names = _columns(header, layout)
    if not number or not _check_columns(names, layout.columns[:1], number, faults):
        return
    for number, cells in records:
        if len(cells) == len(names):
            yield number, dict(zip(names, cells, strict=True))
        else:
            remedy = f"Put a text that holds a {delimiter} in quotes" if len(cells) > len(names) else "Add what is missing"
            faults.add(number, "", f"has {len(cells)} field{'s' * (len(cells) > 1)} where the header has {len(names)}", remedy)


def read_json_lines(text: Iterable[str], layout: Layout[Any], faults: Faults) -> Rows:
    """Rows of a file with one JSON object a line; blank lines are passed over."""
    decoder = _decoder(layout)
    for number, line in enumerate(text, 1):
        if not line.isspace():
            try:
                row = decoder.decode(line.rstrip())
            except (ValueError, RecursionError) as error:
                faults.add(number, *_broken(error))
                if number == 1 and line.lstrip().startswith("["):
                    return
            else:
                yield from _object(number, row, layout, faults)


def read_json_array(text: str, layout: Layout[Any], faults: Faults) -> Rows:
    """Objects of one JSON array; a row is where its object begins. What follows broken JSON is not read."""
    decoder = _decoder(layout)
    at, line, counted = text.index("[") + 1, 1, 0
    try:
        while text[at := _space(text, at)] != "]":
            line, counted = line + text.count("\n", counted, at), at
            row, at = decoder.raw_decode(text, at)
            yield from _object(line, row, layout, faults)
            at = _space(text, at)
            if text[at] not in ",]":
                raise json.JSONDecodeError("Expecting ',' or ']'", text, at)
            at += text[at] == ","
        if text[at + 1 :].strip():
            raise json.JSONDecodeError("Extra data", text, at + 1)
    except IndexError:
        faults.add(line + text.count("\n", counted), "", "the array is not closed", "Add ]")
    except (ValueError, RecursionError) as error:
        faults.add(getattr(error, "lineno", line), *_broken(error))


def read_parquet(path: Path, layout: Layout[Any], faults: Faults) -> Rows:
    """Rows of a Parquet file.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow, which reads Parquet files,", "parquet") from error
    try:
        with parquet.ParquetFile(path) as file:
            names = _columns(file.schema_arrow.names, layout)
            if not _check_columns(names, layout.columns, 0, faults):
                return
            batches = file.iter_batches(batch_size=4_096)
            cells = (row for batch in batches for row in zip(*(column.to_pylist() for column in batch.columns), strict=True))
            for number, row in enumerate(cells, 1):
                yield number, dict(zip(names, row, strict=True))
    except (ArrowException, OSError) as error:
        faults.add(0, "", f"cannot be read as Parquet: {str(error).splitlines()[0]}", "Write the file anew")


def _check_columns(names: Sequence[str], wanted: Sequence[Sequence[str]], number: int, faults: Faults) -> bool:
    """Whether columns are distinct and hold all of one of several sets; notes what is amiss."""
    before = len(faults.found)
    for name in sorted({name for name in names if names.count(name) > 1}):
        faults.add(number, name, "two columns have this name", "Rename or remove one of them")
    if not any(set(columns) <= set(names) for columns in wanted):
        others = [name[:40] for name in names if name not in {name for columns in wanted for name in columns}]
        for name in wanted[0]:
            if name not in names:
                faults.add(number, name, f"there is no such column{near(name, others)}", f"Name the column {name!r} in the first row")
    return len(faults.found) == before


def _columns(header: Sequence[str], layout: Layout[Any]) -> list[str]:
    """Names of columns: those that are known in lower case, the others as they are written, a nameless one by its number."""
    return [layout.canonical(name.strip()) or f"column {number}" for number, name in enumerate(header, 1)]


class _Lines(Iterator[str]):
    """Lines that can be gone back to, with the number of the last one."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self._again = iter(lines), deque[str]()
        self.number = 0
        self.record: list[str] = []  # lines since the record began

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.number += 1
        self.record.append(line)
        return line

    def rewind(self, kept: int) -> None:
        """Goes back to just after the first `kept` lines of the record."""
        self._again.extendleft(reversed(self.record[kept:]))
        self.number -= len(self.record) - kept
        self.record.clear()


def _records(lines: _Lines, delimiter: str, faults: Faults) -> Iterator[tuple[int, list[str]]]:
    """Records with the number of their first line; after a quote that is amiss, reading goes on at the line below it."""
    reader, limit = csv.reader(lines, delimiter=delimiter, strict=True), csv.field_size_limit(MAX_TEXT)
    try:
        while True:
            first = lines.number + 1
            lines.record.clear()
            try:
                record = next(reader)
            except csv.Error as error:
                skipped = _opening(lines.record, delimiter)
                faults.add(first + skipped, "", *_broken_record(error))
                lines.rewind(skipped + 1)
                reader = csv.reader(lines, delimiter=delimiter, strict=True)
            else:
                yield first, record
    except StopIteration:
        return
    finally:
        csv.field_size_limit(limit)


def _broken_record(error: csv.Error) -> tuple[str, str]:
    """Rule and remedy of a record that the csv module refuses."""
    if "field limit" in str(error):
        return f"a text of over {MAX_TEXT} characters begins here", "Shorten it; or, if it is not meant to be so long, close its quote"
    return "a quoted text begins here that does not end as it should", 'Close its quote; write a quote inside it twice: ""'


def _opening(record: Sequence[str], delimiter: str) -> int:
    """In which line of a broken record the field begins that broke it."""
    d = re.escape(delimiter)
    whole = re.match(rf'(?:(?:"(?:[^"]++|"")*+"|[^"{d}][^{d}]*+)?+{d})*+', "".join(record))
    end, line = whole.end() if whole else 0, 0
    while line + 1 < len(record) and end >= len(record[line]):
        end -= len(record[line])
        line += 1
    return line


def _other_delimiter(line: str, delimiter: str, layout: Layout[Any]) -> str | None:
    """The delimiter that a header was written with, if it is another than was said."""
    headers = {name: _columns(next(csv.reader([line], delimiter=sign), []), layout) for name, sign in DELIMITERS.items()}
    fitting = [name for name, columns in headers.items() if set(layout.columns[0]) <= set(columns)]
    return fitting[0] if fitting and delimiter not in fitting else None


def _object(number: int, row: Any, layout: Layout[Any], faults: Faults) -> Rows:
    """A JSON row, if it is an object."""
    if isinstance(row, dict):
        yield number, row
    else:
        faults.add(number, "", f"holds {kind(row)}, not an object", f"Write {layout.example}")


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {type(None): "null", bool: "a truth value", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


class _NotPlain(ValueError):
    """JSON that Python would take and the standard does not, or that means two things."""


def _decoder(layout: Layout[Any]) -> json.JSONDecoder:
    """Of standard JSON, known names in lower case."""
    return json.JSONDecoder(object_pairs_hook=partial(_pairs, layout), parse_float=_finite, parse_constant=_finite)


def _pairs(layout: Layout[Any], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = {layout.canonical(name): value for name, value in pairs}
    if len(row) < len(pairs):
        names = [layout.canonical(name) for name, _ in pairs]
        raise _NotPlain(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice in one object")
    return row


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise _NotPlain(f"{number} is no finite number")
    return value


def _space(text: str, at: int) -> int:
    """Where text goes on after white space."""
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too


def _broken(error: Exception) -> tuple[str, str, str]:
    """Field, rule and remedy of JSON that cannot be used."""
    if isinstance(error, RecursionError):
        return "", "lists or objects are nested too deeply", "Write a flat object"
    if isinstance(error, json.JSONDecodeError):
        return "", f"is no JSON: {error.msg} (column {error.colno})", "Write one JSON object a line; a JSON array belongs in a .json file"
    return "", str(error), "Write each key once and numbers as JSON has them; no NaN, no Infinity"


_SPACE = re.compile(r"[ \t\r\n]*")
