"""Files that are read, and files that are refused: with the line, the field, the rule and a way out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet
from sources import Write, source

from framework.datasets import readers
from framework.datasets.faults import MAX_FAULTS, SHOWN
from framework.errors import DataError, MissingExtraError
from framework.types import Conversation, Message

HEAD = "Prompt,Completion\n"
OK = '{"prompt": "p", "completion": "c"}\n'
U, A, S = ({"role": role, "content": role[0]} for role in ("user", "assistant", "system"))


def chat(*messages: Any, **others: Any) -> str:
    return json.dumps({"messages": messages, **others}) + "\n"


def rows(path: Path, **settings: Any) -> list[Conversation]:
    return list(source(path, **settings).conversations("train"))


def refusal(path: Path, **settings: Any) -> str:
    with pytest.raises(DataError) as raised:
        rows(path, **settings)
    return str(raised.value)


# name -> file, content, prompts and completions that are read
GOOD: dict[str, tuple[str, str | bytes, list[tuple[str, str]]]] = {
    "plain": ("f.csv", HEAD + "a,b\nc,d\n", [("a", "b"), ("c", "d")]),
    "names in any case": ("f.CSV", "completion, PROMPT\nb,a\n", [("a", "b")]),
    "byte order mark": ("f.csv", b"\xef\xbb\xbf" + (HEAD + "a,b\n").encode(), [("a", "b")]),
    "byte order mark, quoted header": ("f.csv", b"\xef\xbb\xbf" + b'"Prompt","Completion"\na,b\n', [("a", "b")]),
    "CRLF": ("f.csv", "Prompt,Completion\r\na,b\r\n", [("a", "b")]),
    "line ends of old": ("f.csv", "Prompt,Completion\ra,b\r", [("a", "b")]),
    "blank lines": ("f.csv", "\n" + HEAD + "\na,b\n  \n\n", [("a", "b")]),
    "no final newline": ("f.csv", HEAD + "a,b", [("a", "b")]),
    "nothing means missing": ("f.csv", HEAD + "NA,null\nNone,nan\nn/a,NULL\n", [("NA", "null"), ("None", "nan"), ("n/a", "NULL")]),
    "numbers stay text": ("f.csv", HEAD + "007,1e3\n", [("007", "1e3")]),
    "spaces stay": ("f.csv", HEAD + " a ,  b\n", [(" a ", "  b")]),
    "quotes": ("f.csv", HEAD + '"a, ""b""\nc","d\r\ne"\n5" pipe,f\n', [('a, "b"\nc', "d\r\ne"), ('5" pipe', "f")]),
    "long text": ("f.csv", HEAD + f"a,{'b' * 500_000}\n", [("a", "b" * 500_000)]),
    "tabs": ("f.tsv", "Prompt\tCompletion\na, b\tc\n", [("a, b", "c")]),
    "JSON lines": ("f.jsonl", OK + '\n{"Prompt": "é", "completion": "\\u00e9"}', [("p", "c"), ("é", "é")]),
    "JSON lines, mark and CRLF": ("f.jsonl", b"\xef\xbb\xbf" + OK.replace("\n", "\r\n").encode(), [("p", "c")]),
    "other line separators in JSON": ("f.jsonl", '{"prompt": "a\u2028b\u0085", "completion": "c"}', [("a\u2028b\u0085", "c")]),
    "JSON lines named json": ("f.json", "\n" + OK + OK, [("p", "c"), ("p", "c")]),
    "JSON array": ("f.json", f"\n [ {OK},\n{OK}\n]\n", [("p", "c"), ("p", "c")]),
    "emoji as a surrogate pair": ("f.jsonl", '{"prompt": "\\ud83d\\ude00", "completion": "c"}', [("😀", "c")]),
    "odd name": ("a b\né.csv", HEAD + "a,b\n", [("a", "b")]),
}


@pytest.mark.parametrize("case", GOOD)
def test_good_files_are_read_as_they_are(case: str, write: Write) -> None:
    name, content, expected = GOOD[case]
    assert [(row.prompt[0].content, row.completion) for row in rows(write(name, content))] == expected


# name -> file, content, what the message says
BAD: dict[str, tuple[str, str | bytes, tuple[str, ...]]] = {
    "empty": ("f.csv", "", ("the file is empty",)),
    "empty JSON lines": ("f.jsonl", "", ("the file is empty",)),
    "blank": ("f.jsonl", "\n \n", ("has 0 rows",)),
    "header only": ("f.csv", HEAD, ("has 0 rows",)),
    "empty array": ("f.json", "[]", ("has 0 rows",)),
    "first row too long": ("f.csv", HEAD + "a,b,c\nd,e\n", ("line 2: has 3 fields where the header has 2", "quotes")),
    "later row too long": ("f.csv", HEAD + "d,e\na,b,c\n", ("line 3: has 3 fields",)),
    "row too short": ("f.csv", HEAD + "d,e\na\n", ("line 3: has 1 field where the header has 2",)),
    "empty field": ("f.csv", HEAD + 'a,""\n ,b\n', ("line 2, completion: is empty", "line 3, prompt: is empty")),
    "duplicate column": ("f.csv", "prompt,Prompt,completion\na,b,c\n", ("line 1, prompt: two columns have this name",)),
    "duplicate further column": ("f.csv", "prompt,x,x,completion\na,b,c,d\n", ("line 1, x: two columns",)),
    "semicolons": ("f.csv", "Prompt;Completion\na;b\n", ("line 1: the columns are separated by a semicolon", "data.delimiter=semicolon")),
    "quoted semicolons": ("f.csv", '"Prompt";"Completion"\n"a";"b"\n', ("data.delimiter=semicolon",)),
    "tabs in csv": ("f.csv", "\nPrompt\tCompletion\na\tb\n", ("line 2", "data.delimiter=tab")),
    "commas in tsv": ("f.tsv", HEAD + "a,b\n", ("data.delimiter=comma",)),
    "missing column": ("f.csv", "Prompt,Completions\na,b\n", ("line 1, completion: there is no such column; did you mean 'Completions'?",)),
    "no header": ("f.csv", "How long is it?,Two metres.\n", ("line 1, prompt: there is no such column", "How long is it?", "first row")),
    "quote never closed": ("f.csv", HEAD + 'a,b\n"c\nd",e\nf,"g\nh,i\n', ("line 5: a quoted text begins here that does not end",)),
    "quote closed by the next": ("f.csv", HEAD + 'a,"b\nc,"d"\n', ("line 2: a quoted text begins",)),
    "quote inside": ("f.csv", HEAD + '"a ""b"" c","say "d" now"\ne,f\n', ("line 2: a quoted text", 'twice: ""')),
    "quote opened below": ("f.csv", HEAD + '"a\nb","c\n', ("line 3: a quoted text",)),
    "NUL byte": ("f.csv", HEAD + "a,b\nc,d\0\n", ("line 3: holds a NUL byte",)),
    "UTF-16 without mark": ("f.csv", (HEAD + "a,b\n").encode("utf-16-le"), ("NUL", "utf-16-le")),
    "text too long": ("f.csv", HEAD + f"a,b\nc,{'d' * 2_000_000}\n", ("line 3: a text of over 1048576 characters",)),
    "text too long in JSON": ("f.jsonl", json.dumps({"prompt": "d" * 2_000_000, "completion": "c"}), ("line 1, prompt: has 2000000 characters",)),
    "UTF-16": ("f.csv", (HEAD + "a,b\n").encode("utf-16"), ("line 1: byte 0 is not utf-8", "data.encoding=utf-16")),
    "cp1252": ("f.csv", (HEAD + "a,b\ncafé,d\n").encode("cp1252"), ("line 3: byte 25 is not utf-8", "data.encoding=cp1252")),
    "cut in a character": ("f.jsonl", OK.encode() + b"\xc3", (f"line 2: byte {len(OK)} is not utf-8",)),
    "broken line": ("f.jsonl", OK * 2 + '{"prompt": "p",\n' + OK, ("line 3: is no JSON: Expecting property name", "(column 16)")),
    "array in JSON lines": ("f.jsonl", f"[\n{OK},\n{OK}]", ("line 1: is no JSON", ".json file")),
    "CSV named jsonl": ("f.jsonl", HEAD + "a,b\n", ("line 1: is no JSON",)),
    "mixed types": (
        "f.jsonl",
        OK + '{"prompt": [1, "yes"], "completion": 3}\n',
        ("line 2, prompt[0]: is a number", "line 2, completion: is a number, not a text"),
    ),
    "null": ("f.jsonl", '{"prompt": null, "completion": true}', ("prompt: is null, not a text", "completion: is a truth value")),
    "no object": ("f.jsonl", OK + '"p"\n3\n', ("line 2: holds a text, not an object", "line 3: holds a number")),
    "missing key": ("f.jsonl", OK + '{"prompt": "p", "complation": "c"}', ("line 2, completion: is missing; did you mean 'complation'?",)),
    "NaN": ("f.jsonl", OK + '{"prompt": "p", "completion": "c", "x": NaN}', ("line 2: NaN is no finite number",)),
    "Infinity": ("f.jsonl", '{"prompt": "p", "completion": "c", "x": [-Infinity]}', ("line 1: -Infinity is no finite number",)),
    "1e999": ("f.jsonl", '{"prompt": "p", "completion": "c", "x": 1e999}', ("1e999 is no finite number",)),
    "duplicate key": ("f.jsonl", '{"prompt": "p", "completion": "c", "Prompt": "q"}', ("line 1: the key 'prompt' stands twice",)),
    "endless number": ("f.jsonl", f'{{"prompt": "p", "completion": "c", "x": {"9" * 5_000}}}', ("line 1: Exceeds the limit",)),
    "deep nesting": ("f.jsonl", OK + "[" * 100_000 + "\n" + '{"a":' * 100_000, ("line 2: lists or objects are nested too deeply", "line 3")),
    "deep nesting in an array": ("f.json", "[" * 100_000, ("line 1: lists or objects are nested too deeply",)),
    "NUL in JSON": ("f.jsonl", '{"prompt": "a\\u0000", "completion": "c"}', ("prompt: holds a NUL character",)),
    "lone surrogate": ("f.jsonl", '{"prompt": "a\\ud83d", "completion": "c"}', ("prompt: holds half of a character",)),
    "array cut off": ("f.json", f"[{OK},\n", ("line 3: the array is not closed",)),
    "array without comma": ("f.json", f"[{OK}\n{OK}]", ("line 3: is no JSON: Expecting ',' or ']'",)),
    "array with more": ("f.json", f"[{OK}]\n{OK}", ("is no JSON: Extra data",)),
    "array of the wrong": ("f.json", f'[{OK},\n\n{{"prompt": "p"}}, 3]', ("line 4, completion: is missing", "line 4: holds a number")),
    "Parquet named csv": ("f.csv", b"PAR1\x15\x04", ("is Parquet, whatever its name says", "Name it .parquet")),
    "gzip named csv": ("f.csv", b"\x1f\x8b\x08\x00", ("is gzip", "gunzip")),
    "workbook named csv": ("f.csv", b"PK\x03\x04....", ("an Excel workbook", "save it as CSV")),
    "JSON named csv": ("f.csv", OK, ("holds JSON", "Name it .jsonl")),
    "CSV named parquet": ("f.parquet", HEAD + "a,b\n", ("is no Parquet file",)),
    "Parquet cut off": ("f.parquet", b"PAR1\x15\x04", ("cannot be read as Parquet",)),
    "another kind": ("f.txt", "a", ("is of a kind that is not read", ".csv, .tsv, .jsonl")),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_with_place_rule_and_remedy(case: str, write: Write) -> None:
    name, content, told = BAD[case]
    message = refusal(write(name, content))
    assert all(part in message for part in (name, *told)), message
    assert len(message) < 1_000


CHATS: dict[str, tuple[str, str]] = {
    "unknown role": (chat({"role": "asistant", "content": "a"}), "messages[0].role: 'asistant' is none of a conversation's; did you mean 'assistant'?"),
    "no role": (chat({"content": "a"}), "messages[0].role: is missing"),
    "tool": (chat(U, {"role": "tool", "content": "a"}), "messages[1].role: 'tool'"),
    "not alternating": (chat(U, U, A), "message [1] is of user where assistant must speak"),
    "not alternating after system": (chat(S, U, A, A), "message [3] is of assistant where user must speak"),
    "assistant first": (chat(A), "message [0] is of assistant where user must speak"),
    "content None": (chat(U, {"role": "assistant", "content": None}), "messages[1].content: is null, not a text"),
    "no content": (chat(U, {"role": "assistant"}), "messages[1].content: is missing"),
    "content empty": (chat({"role": "user", "content": " "}, A), "messages[0].content: is empty"),
    "picture": (chat({"role": "user", "content": [{"type": "image_url"}]}, A), "messages[0].content: is a list, not a text"),
    "system later": (chat(U, S, A), "a system message stands after the first"),
    "system last": (chat(U, A, S), "a system message stands after the first"),
    "no assistant": (chat(S, U), "the assistant says nothing"),
    "user last": (chat(U, A, U), "the user has the last word"),
    "weight of the last": (chat(U, A, U, {**A, "weight": 0}), "the last message has weight 0"),
    "weight of a half": (chat(U, {**A, "weight": 0.5}), "messages[1].weight: 0.5"),
    "weight of a user": (chat({**U, "weight": 1}, A), "messages[0].weight: 1 stands in a message of user"),
    "weight of true": (chat(U, {**A, "weight": True}), "messages[1].weight: True"),
    "unknown key": (chat(U, {**A, "wieght": 1}), "messages[1].wieght: is not a message's; did you mean 'weight'?"),
    "tool calls": (chat(U, {**A, "tool_calls": [{}]}), "messages[1].tool_calls: is not a message's"),
    "tools": (chat(U, A, tools=[{"type": "function"}]), "tools: tools cannot be learnt"),
    "no messages": (chat(), "messages: is an empty list"),
    "messages a text": ('{"messages": "hello"}', "messages: is a text, not a list"),
    "message a text": ('{"messages": ["hello"]}', "messages[0]: is a text, not an object"),
    "both": (chat(U, A, prompt="p", completion="c"), "prompt: stands beside messages"),
    "completion of a user": (json.dumps({"prompt": [U], "completion": [U]}), "the assistant says nothing"),
}


@pytest.mark.parametrize("case", CHATS)
def test_chats_follow_the_grammar(case: str, write: Write) -> None:
    content, told = CHATS[case]
    message = refusal(write("f.jsonl", chat(U, A) + content))
    assert "line 2, " in message and told in message, message


def test_chats_are_read_with_their_weights(write: Write) -> None:
    nulls = {**A, "refusal": None, "weight": None}
    path = write("f.jsonl", chat({**S, "role": "developer"}, U, {**A, "weight": 0}, U, {**A, "weight": 1}, parallel_tool_calls=True, tools=[]) + chat(U, nulls))
    first, second = rows(path, system="t")
    assert [(m.role, m.content, m.weight) for m in first.messages] == [
        ("system", "s", 1.0),
        ("user", "u", 1.0),
        ("assistant", "a", 0.0),
        ("user", "u", 1.0),
        ("assistant", "a", 1.0),
    ]
    assert second.messages == (Message("system", "t"), Message("user", "u"), Message("assistant", "a"))
    assert first.fields == {"parallel_tool_calls": "true", "tools": "[]"} and first.origin == "f.jsonl, line 1"


def test_of_a_prompt_in_messages_only_the_completion_is_learnt(write: Write) -> None:
    path = write("f.jsonl", json.dumps({"prompt": [S, U, A, U], "completion": [A]}) + "\n" + json.dumps({"prompt": [U], "completion": "c"}))
    first, second = rows(path)
    assert [m.weight for m in first.messages if m.role == "assistant"] == [0.0, 1.0]
    assert second.messages == (Message("user", "u"), Message("assistant", "c"))


def test_further_columns_are_kept_and_named(write: Write) -> None:
    told = source(write("f.csv", "Topic,Prompt,Completion,\n" + "".join(f"x,{n},{n},y\n" for n in range(12))))
    assert told.conversations("train")[0].fields == {"Topic": "x", "column 4": "y"}
    assert told.warnings() == ["f.csv: Topic, column 4 kept with each row, not learnt"]


def test_lines_are_those_of_an_editor(write: Write) -> None:
    path = write("f.csv", HEAD + '"a\r\nb\n",c\n\nd,"e\n\n"\nf\n')
    assert "f.csv: line 9: has 1 field" in refusal(path)
    path.write_text(HEAD + '"a\nb\n",c\n\nd,"e\n\n"\nf,g\n', encoding="utf-8")
    assert [row.origin for row in rows(path)] == ["f.csv, line 2", "f.csv, line 6", "f.csv, line 9"]


def test_all_faults_are_told_at_once(write: Write) -> None:
    message = refusal(write("f.csv", HEAD + 'a,\n,b\n"c,d\ne,"f"g\nh,i,j\nk,l\n'))
    lines = message.splitlines()
    assert lines[0].endswith("f.csv: 5 faults")
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["line 2, completion", "line 3, prompt", "line 4", "line 5", "line 6"]


def test_many_faults_are_counted(write: Write) -> None:
    message = refusal(write("f.csv", HEAD + "a,\n" * 50))
    assert len(message.splitlines()) == SHOWN + 2 and message.endswith("and 30 more") and "line 21" in message
    message = refusal(write("g.csv", HEAD + "a,\n" * 5_000))
    assert f"at least {MAX_FAULTS} faults" in message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "cp1252", "utf-8-sig"])
def test_other_encodings_are_read_if_named(encoding: str, write: Write) -> None:
    assert rows(write("f.csv", (HEAD + "café,d\n").encode(encoding)), encoding=encoding)[0].prompt[0].content == "café"


def test_the_offset_of_a_wrong_byte_is_that_of_the_file(write: Write) -> None:
    good = (HEAD + "é,b\n" * 700_000).encode()
    assert f"byte {len(good) + 1} is not utf-8" in refusal(write("f.csv", good + b"a\xe9,b\n"))
    assert "line 700002" in refusal(write("f.csv", good + b"a\xe9,b\n"))


@pytest.mark.parametrize(("delimiter", "sign"), [("semicolon", ";"), ("tab", "\t"), ("pipe", "|")])
def test_other_delimiters_are_read_if_named(delimiter: str, sign: str, write: Write) -> None:
    assert rows(write("f.csv", f"Prompt{sign}Completion\na, b{sign}c\n"), delimiter=delimiter)[0].prompt[0].content == "a, b"


def test_a_folder_is_refused(write: Write, tmp_path: Path) -> None:
    write("faq.csv", "")
    assert "is a folder" in refusal(tmp_path) and "faq.csv" in refusal(tmp_path)


def test_a_missing_file_has_near_names(write: Write, tmp_path: Path) -> None:
    write("support_faq.csv", "")
    assert "no such file; did you mean 'support_faq.csv'?" in refusal(tmp_path / "suport_faq.csv")
    assert f"there is no folder {tmp_path / 'nowhere'}" in refusal(tmp_path / "nowhere" / "f.csv")


def test_a_file_that_may_not_be_read(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    path = write("f.csv", HEAD + "a,b\n")
    monkeypatch.setattr(Path, "open", refuse)
    assert "may not be read. Allow it: chmod u+r" in refusal(path)


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    loop, pipe = tmp_path / "loop.csv", tmp_path / "pipe.csv"
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    assert "leads to itself" in refusal(loop)
    assert "is no plain file" in refusal(pipe)
    assert "cannot be opened" in refusal(tmp_path / "a\0.csv")
    assert "cannot be opened: File name too long" in refusal(tmp_path / ("a" * 300 + ".csv"))


def test_a_large_file_is_refused(write: Write) -> None:
    message = refusal(write("f.csv", HEAD + "a,b\n" * 1_000), max_megabytes=0.001)
    assert "has 0.0 MB, over 0.001" in message and "data.max_megabytes" in message


@pytest.fixture
def table(tmp_path: Path) -> Any:
    """Writes a Parquet file of columns."""

    def table(columns: dict[str, list[Any]]) -> Path:
        parquet.write_table(pyarrow.table(columns), tmp_path / "f.parquet")
        return tmp_path / "f.parquet"

    return table


def test_parquet_is_read(table: Any) -> None:
    first, second = rows(table({"Prompt": ["a", "b"], "completion": ["c", "d"], "n": [1, None]}))
    assert (first.completion, first.fields, first.origin) == ("c", {"n": "1"}, "f.parquet, row 1") and not second.fields
    (row,) = rows(table({"messages": [[U, {**A, "weight": 1}]]}))
    assert row.messages == (Message("user", "u"), Message("assistant", "a"))


def test_faults_in_parquet_have_their_row(table: Any) -> None:
    assert "row 2, completion: is null" in refusal(table({"prompt": ["a", "b"], "completion": ["c", None]}))
    assert "row 1, prompt: is a number" in refusal(table({"prompt": [1], "completion": ["c"]}))
    assert "completion: there is no such column; did you mean 'completon'?" in refusal(table({"prompt": ["a"], "completon": ["c"]}))
    assert "prompt: two columns have this name" in refusal(table({"prompt": ["a"], "Prompt": ["a"], "completion": ["c"]}))
    assert "has 0 rows" in refusal(table({"prompt": [], "completion": []}))


def test_parquet_needs_its_extra(table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table({"prompt": ["a"], "completion": ["c"]})
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match="parquet"):
        rows(path)


def test_the_csv_module_is_left_as_it_was(write: Write) -> None:
    before = readers.csv.field_size_limit()
    rows(write("f.csv", HEAD + "a,b\n"))
    refusal(write("f.csv", HEAD + '"a,b\n'))
    assert readers.csv.field_size_limit() == before
