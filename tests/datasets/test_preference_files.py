"""Files of preferences: what is read, what is refused, what is warned of."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet
from sources import Write

from framework.config import build
from framework.datasets.preferences import PreferenceFile, prompt_of
from framework.errors import ConfigError, DataError
from framework.types import Message, Preference

U, A, S = ({"role": role, "content": role[0]} for role in ("user", "assistant", "system"))
HEAD = "Prompt,Chosen,Rejected\n"


def said(*roles_and_texts: str) -> list[dict[str, str]]:
    """`u:hello` is a message of the user."""
    return [{"role": {"s": "system", "u": "user", "a": "assistant"}[text[0]], "content": text[2:]} for text in roles_and_texts]


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def source(path: Path, **settings: Any) -> PreferenceFile:
    return PreferenceFile(**{"path": str(path), "validation_share": 0.0, "test_share": 0.0, **settings})


def rows(path: Path, **settings: Any) -> list[Preference]:
    return list(source(path, **settings).preferences("train"))


def refusal(path: Path, **settings: Any) -> str:
    with pytest.raises(DataError) as raised:
        rows(path, **settings)
    return str(raised.value)


def written(row: Preference) -> tuple[list[str], list[str]]:
    """Both sides in short."""
    return tuple([f"{message.role[0]}:{message.content}" for message in side.messages] for side in (row.chosen, row.rejected))  # type: ignore[return-value]


PLAIN = (["u:p", "a:c"], ["u:p", "a:r"])
TURNS = said("a:ask", "u:two", "a:go"), said("a:go")
# name -> file, content, both sides of its first row
GOOD: dict[str, tuple[str, str, tuple[list[str], list[str]]]] = {
    "CSV": ("f.csv", HEAD + "p,c,r\n", PLAIN),
    "tabs": ("f.tsv", "rejected\tprompt\tchosen\nr\tp\tc\n", PLAIN),
    "JSON lines": ("f.jsonl", lines({"prompt": "p", "chosen": "c", "rejected": "r"}), PLAIN),
    "names in any case": ("f.jsonl", lines({"Prompt": "p", "CHOSEN": "c", "Rejected": "r"}), PLAIN),
    "JSON array": ("f.json", json.dumps([{"prompt": "p", "chosen": "c", "rejected": "r"}]), PLAIN),
    "messages": ("f.jsonl", lines({"prompt": said("u:p"), "chosen": said("a:c"), "rejected": said("a:r")}), PLAIN),
    "messages and texts": ("f.jsonl", lines({"prompt": said("u:p"), "chosen": "c", "rejected": said("a:r")}), PLAIN),
    "episodes": (
        "f.jsonl",
        lines({"prompt": said("u:one"), "chosen": TURNS[0], "rejected": TURNS[1]}),
        (["u:one", "a:ask", "u:two", "a:go"], ["u:one", "a:go"]),
    ),
    "prompt in both lists": (
        "f.jsonl",
        lines({"chosen": said("s:s", "u:p", "a:x", "u:q", "a:c"), "rejected": said("s:s", "u:p", "a:x", "u:q", "a:r")}),
        (["s:s", "u:p", "a:x", "u:q", "a:c"], ["s:s", "u:p", "a:x", "u:q", "a:r"]),
    ),
    "prompt in both lists and beside them": ("f.jsonl", lines({"prompt": "p", "chosen": said("u:p", "a:c"), "rejected": said("u:p", "a:r")}), PLAIN),
    "both lists the same": ("f.jsonl", lines({"chosen": said("u:p", "a:c"), "rejected": said("u:p", "a:c")}), (PLAIN[0], PLAIN[0])),
}


@pytest.mark.parametrize("case", GOOD)
def test_good_files_are_read_as_they_are(case: str, write: Write) -> None:
    name, content, expected = GOOD[case]
    assert written(rows(write(name, content))[0]) == expected


def test_parquet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    table = {"prompt": [said("u:p")], "chosen": [said("a:c")], "rejected": [said("a:r")], "label": [0.5], "margin": [2]}
    parquet.write_table(pyarrow.table(table), path)
    (row,) = rows(path)
    assert written(row) == PLAIN and (row.label, row.margin) == (0.5, 2.0) and math.isnan(row.probability)


def test_numbers_are_read_and_the_rest_is_kept(write: Write) -> None:
    full = {"prompt": "p", "chosen": "c", "rejected": "r", "label": 0.5, "probability": 0.25, "margin": -3, "episode": 7, "note": "x"}
    first, second = rows(write("f.jsonl", lines(full, {"prompt": "q", "chosen": "c", "rejected": "r", "label": None})))
    assert (first.label, first.probability, first.margin) == (0.5, 0.25, -3.0)
    assert first.chosen.fields == first.rejected.fields == {"episode": "7", "note": "x"} and first.chosen.origin == "f.jsonl, line 1"
    assert second.label == 1.0 and math.isnan(second.probability) and math.isnan(second.margin)
    (row,) = rows(write("f.csv", "prompt,chosen,rejected,label,margin\np,c,r,0.75,\n"))
    assert row.label == 0.75 and math.isnan(row.margin)


def test_the_prompt_is_not_learnt(write: Write) -> None:
    content = lines({"prompt": said("u:p", "a:x", "u:q"), "chosen": said("a:c", "u:d", "a:e"), "rejected": said("a:r")})
    (row,) = rows(write("f.jsonl", content), system="Be kind.")
    assert [message.weight for message in row.chosen.messages if message.role == "assistant"] == [0.0, 1.0, 1.0]
    assert row.rejected.messages[0] == Message("system", "Be kind.")
    assert [message.content for message in prompt_of(row.chosen)] == ["Be kind.", "p", "x", "q"]


# name -> file, content, what the message says
BAD: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "empty": ("f.jsonl", "", ("the file is empty", "prompt, chosen and rejected")),
    "header only": ("f.csv", HEAD, ("has 0 rows. Add rows with prompt, chosen and rejected",)),
    "missing column": ("f.csv", "prompt,choosen,rejected\na,b,c\n", ("line 1, chosen: there is no such column; did you mean 'choosen'?",)),
    "a chat": ("f.jsonl", lines({"messages": [U, A]}), ("chosen: is missing", "rejected: is missing")),
    "missing key": ("f.jsonl", lines({"prompt": "p", "chosen": "c", "rejcted": "r"}), ("line 1, rejected: is missing; did you mean 'rejcted'?",)),
    "empty side": ("f.csv", HEAD + "p,,r\np,c, \n", ("2 faults", "line 2, chosen: is empty", "line 3, rejected: is empty")),
    "mixed types": ("f.jsonl", lines({"prompt": 3, "chosen": "c", "rejected": [1]}), ("prompt: is a number", "rejected[0]: is a number")),
    "no prompt of texts": ("f.jsonl", lines({"chosen": "c", "rejected": "r", "promt": "p"}), ("line 1, prompt: is missing; did you mean 'promt'?",)),
    "nothing in common": ("f.jsonl", lines({"chosen": said("u:p", "a:c"), "rejected": said("u:q", "a:r")}), ("do not begin with the same messages",)),
    "prompt of the assistant": (
        "f.jsonl",
        lines({"prompt": said("u:p", "a:x"), "chosen": "c", "rejected": "r"}),
        ("prompt: ends with a message of assi",),
    ),
    "side of a user": ("f.jsonl", lines({"prompt": "p", "chosen": said("u:c"), "rejected": "r"}), ("chosen: the assistant says nothing",)),
    "user last": ("f.jsonl", lines({"prompt": "p", "chosen": "c", "rejected": said("a:r", "u:x")}), ("rejected: the user has the last word",)),
    "no turns": ("f.jsonl", lines({"prompt": "p", "chosen": said("a:c", "a:d"), "rejected": "r"}), ("chosen: message [2] is of assistant where user",)),
    "label out of range": ("f.jsonl", lines({"prompt": "p", "chosen": "c", "rejected": "r", "label": 2}), ("line 1, label: 2 is no number from 0 to 1",)),
    "label of words": ("f.csv", "prompt,chosen,rejected,label\np,c,r,1\np,c,r,x\n", ("line 3, label: 'x' is no number from 0 to 1", "another name")),
    "label of truth": ("f.jsonl", lines({"prompt": "p", "chosen": "c", "rejected": "r", "label": True}), ("label: True is no number",)),
    "margin NaN": ("f.csv", "prompt,chosen,rejected,margin\np,c,r,nan\n", ("margin: 'nan' is no number",)),
    "probability infinite": ("f.jsonl", '{"prompt": "p", "chosen": "c", "rejected": "r", "probability": Infinity}', ("Infinity is no finite number",)),
    "a list as a margin": ("f.jsonl", lines({"prompt": "p", "chosen": "c", "rejected": "r", "margin": [1]}), ("margin: a list is no number",)),
    "tools": ("f.jsonl", lines({"prompt": "p", "chosen": "c", "rejected": "r", "tools": [{}]}), ("tools cannot be learnt",)),
    "no object": ("f.jsonl", "3\n", ('Write {"prompt": ..., "chosen": ..., "rejected": ...}',)),
    "duplicate key": ("f.jsonl", '{"prompt": "p", "chosen": "c", "Chosen": "d", "rejected": "r"}', ("the key 'chosen' stands twice",)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_with_place_rule_and_remedy(case: str, write: Write) -> None:
    name, content, told = BAD[case]
    message = refusal(write(name, content))
    assert all(part in message for part in (name, *told)), message


def many(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Rows whose sides are as long as each other."""
    return [{"prompt": f"q{number}", "chosen": "yes", "rejected": "no"} for number in range(first, first + count)]


WARNINGS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "alike": ([*many(12), {"prompt": "x", "chosen": "a", "rejected": " A "}], "chosen and rejected are the same, so that nothing is learnt from them: 1, as"),
    "repeated": ([*many(12), *many(2)], "f.jsonl: rows that repeat another: 2, as f.jsonl, line 1 and f.jsonl, line 13"),
    "contradicting": (
        [*many(12), {"prompt": "Q3", "chosen": "no", "rejected": "yes"}],
        "pairs that rows disagree on: 1, as f.jsonl, line 4 and f.jsonl, l",
    ),
    "a tie contradicts": ([*many(12), {**many(1)[0], "label": 0.5}], "pairs that rows disagree on: 1"),
    "turned": ([*many(11), {**many(1, 11)[0], "label": 0.25}], "label is under 0.5, so that `rejected` is what was liked: 1, as f.jsonl, line 12"),
    "all ties": ([{**row, "label": 0.5} for row in many(12)], "all rows are ties"),
    "longer": ([{**row, "chosen": "yes_indeed"} for row in many(12)], "chosen is the longer one in 12 of 12 rows"),
    "shorter": ([{**row, "rejected": "not at all"} for row in many(12)], "chosen is the shorter one in 12 of 12 rows"),
    "few": (many(9), "rows to train on: only 9"),
}


@pytest.mark.parametrize("case", WARNINGS)
def test_what_ought_to_be_known_is_told_once_or_refused(case: str, write: Write) -> None:
    content, expected = WARNINGS[case]
    path = write("f.jsonl", lines(*content))
    (told,) = source(path).warnings()
    assert expected in told
    with pytest.raises(DataError, match="data.strict=false"):
        source(path, strict=True).preferences("train")


def test_a_file_without_faults_has_no_warnings(write: Write) -> None:
    assert source(write("f.jsonl", lines(*many(12)))).warnings() == []


def test_pairs_in_two_splits_are_counted_whichever_side_was_liked(write: Write) -> None:
    turned = {"prompt": "q1", "chosen": "no", "rejected": "yes"}
    train, test = write("a.jsonl", lines(*many(12))), write("b.jsonl", lines(turned, {**many(1)[0], "chosen": "other"}))
    (told,) = source(train, test=str(test)).warnings()
    assert told == "pairs of test that stand in train too: 1, as b.jsonl, line 1 and a.jsonl, line 2"


def test_a_prompt_is_never_held_out_and_trained_on(write: Write) -> None:
    path = write("f.jsonl", lines(*(row | {"rejected": f"no {copy}"} for copy in range(3) for row in many(40))))
    told = source(path, validation_share=0.1, test_share=0.2)
    parts = {split: {row.chosen.messages[0].content for row in told.preferences(split)} for split in ("train", "validation", "test")}
    assert [len(parts[split]) for split in parts] == [28, 4, 8] and len(set.union(*parts.values())) == 40


def test_a_folder_of_splits_is_taken_whole(write: Write, tmp_path: Path) -> None:
    for number, split in enumerate(("train", "validation", "test")):
        write(f"{split}.jsonl", lines(*many(12 - number, 100 * number)))
    told = PreferenceFile(path=str(tmp_path))
    assert [len(told.preferences(split)) for split in ("train", "validation", "test")] == [12, 11, 10] and told.name == tmp_path.stem
    other = write("other.jsonl", lines(*many(3, 300)))
    assert len(PreferenceFile(path=str(tmp_path), test=str(other)).preferences("test")) == 3


def test_settings_are_checked_before_anything_is_read() -> None:
    with pytest.raises(ConfigError, match="did you mean 'strict'"):
        build({"_target_": "framework.datasets.preferences.PreferenceFile", "path": "nowhere.jsonl", "strickt": True}, "data")
    assert isinstance(build({"_target_": "framework.datasets.preferences.PreferenceFile", "path": "nowhere.jsonl"}, "data"), PreferenceFile)
