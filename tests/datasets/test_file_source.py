"""A file as a source of conversations: splits, warnings, scores, and rows that a model cannot read whole."""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sources import Write, source

import framework.datasets
from framework.config import build
from framework.datasets import SPLITS
from framework.datasets.answers import token_f1
from framework.datasets.checks import Overlong, fit_context, prompt_key
from framework.datasets.source import FileSource
from framework.errors import ConfigError, DataError
from framework.types import Conversation, Message, Tokens

HEAD = "Prompt,Completion\n"
FAQ = Path(framework.datasets.__file__).parent / "examples" / "support_faq.csv"


def table(prompts: list[str]) -> str:
    return HEAD + "".join(f"{prompt},answer to {prompt}\n" for prompt in prompts)


def split(told: FileSource) -> dict[str, set[str]]:
    return {name: {prompt_key(row) for row in told.conversations(name)} for name in SPLITS}


def test_shares_are_held_out_and_none_is_lost(write: Write) -> None:
    told = FileSource(path=str(write("f.csv", table([f"q{n}" for n in range(200)]))), validation_share=0.1, test_share=0.2)
    assert [len(told.conversations(name)) for name in SPLITS] == [140, 20, 40]
    assert len(set.union(*split(told).values())) == 200


def test_a_prompt_is_in_one_split_however_it_is_written(write: Write) -> None:
    prompts = [variant for n in range(50) for variant in (f"Question {n}", f" question  {n}", f"QUESTION {n} ")]
    told = FileSource(path=str(write("f.csv", table(prompts))))
    parts = split(told)
    assert sum(map(len, parts.values())) == 50 and len(told.conversations("test")) == 15


def test_the_split_depends_on_the_seed_and_not_on_the_order(write: Write) -> None:
    prompts = [f"q{n}" for n in range(100)]
    first, turned, other = (
        split(FileSource(path=str(write(f"{name}.csv", table(order))), split_seed=seed))
        for name, order, seed in (("a", prompts, 0), ("b", prompts[::-1], 0), ("c", prompts, 1))
    )
    assert first == turned != other


def test_files_of_their_own_replace_shares(write: Write) -> None:
    train, test = write("train.csv", table([f"q{n}" for n in range(20)])), write("test.csv", table(["t1", "t2"]))
    told = FileSource(path=str(train), test=str(test), validation_share=0.1)
    assert [len(told.conversations(name)) for name in SPLITS] == [18, 2, 2]
    assert told.digest == hashlib.sha256(train.read_bytes()).hexdigest() and told.name == "train"


def test_a_file_too_small_to_split_is_refused(write: Write) -> None:
    path = write("f.csv", table(["a", "b"]))
    with pytest.raises(DataError, match=r"2 different prompts are too few .* data.validation_share=0"):
        FileSource(path=str(path)).conversations("train")
    assert len(source(path).conversations("train")) == 2 and not source(path).conversations("test")


def test_a_system_prompt_goes_before_rows_without_one(write: Write) -> None:
    told = source(write("f.csv", table(["a"])), system="Be brief.")
    assert told.conversations("train")[0].messages[0] == Message("system", "Be brief.")


TWELVE = [f"q{n}" for n in range(12)]
WARNINGS: dict[str, tuple[str, str]] = {
    "duplicates": (
        table([*TWELVE, "q3"]) + " Q4,answer to q4\n",
        "rows that repeat another: 2, as f.csv, line 5 and f.csv, line 14",
    ),
    "contradictions": (table(TWELVE) + "Q3,no\nq3,never\n", "f.csv: prompts with several completions: 1, as f.csv, line 5 and f.csv, line 14"),
    "constant": (HEAD + "".join(f"{q},yes\n" for q in TWELVE), "f.csv: all completions are the same"),
    "few": (table(TWELVE[:9]), "rows to train on: only 9; hosted fine-tuning asks for 10"),
}


@pytest.mark.parametrize("case", WARNINGS)
def test_what_ought_to_be_known_is_told_once_or_refused(case: str, write: Write) -> None:
    content, expected = WARNINGS[case]
    path = write("f.csv", content)
    (told,) = source(path).warnings()
    assert expected in told
    with pytest.raises(DataError, match="data.strict=false") as raised:
        source(path, strict=True).conversations("train")
    assert told in str(raised.value)


def test_overlaps_of_files_are_counted(write: Write) -> None:
    train, validation, test = (write(f"{name}.csv", table(prompts)) for name, prompts in (("a", TWELVE), ("b", ["Q1", "q2", "x"]), ("c", ["x", "q2"])))
    assert source(train, validation=str(validation), test=str(test)).warnings() == [
        "prompts of validation that stand in train too: 2, as b.csv, line 2 and a.csv, line 3",
        "prompts of test that stand in train too: 1, as c.csv, line 3 and a.csv, line 4",
        "prompts of test that stand in validation too: 2, as c.csv, line 2 and b.csv, line 4",
    ]


def test_further_columns_are_no_reason_for_strictness(write: Write) -> None:
    told = source(write("f.csv", "Prompt,Completion,Topic\n" + "".join(f"{q},{q},t\n" for q in TWELVE)), strict=True)
    assert len(told.conversations("train")) == 12 and told.warnings() == ["f.csv: Topic kept with each row, not learnt"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"encoding": "utf8x"}, "encoding 'utf8x' is none that Python knows"),
        ({"encoding": "hex"}, "encoding 'hex'"),
        ({"validation_share": 0.5, "test_share": 0.5}, "leave nothing to train on"),
        ({"validation_share": -0.1}, "data.validation_share: input should be greater than or equal to 0"),
        ({"delimiter": ";"}, "data.delimiter: input should be 'comma', 'semicolon', 'tab' or 'pipe'"),
        ({"system": " "}, "system is empty"),
        ({"strickt": True}, "did you mean 'strict'?"),
    ],
)
def test_settings_are_checked_before_anything_is_read(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        build({"_target_": "framework.datasets.source.FileSource", "path": "nowhere.csv", **settings}, "data")
    assert told in str(raised.value)


def test_an_unknown_split_is_refused(write: Write) -> None:
    with pytest.raises(ConfigError, match="did you mean 'validation'"):
        source(write("f.csv", table(["a"]))).conversations("valid")


@pytest.mark.parametrize(
    ("answer", "reference", "f1"),
    [
        ("The shop opens at nine.", "shop opens at nine", 1.0),
        ("opens nine nine", "opens at nine", 2 / 3),  # 2 shared of 3 said and 3 meant
        ("no", "opens at nine", 0.0),
        ("", "opens", 0.0),
        ("the", "a", 1.0),
    ],
)
def test_token_f1_by_hand(answer: str, reference: str, f1: float) -> None:
    assert token_f1(answer, reference) == pytest.approx(f1)


def test_scores_are_exact_match_first_and_token_f1(write: Write) -> None:
    told = source(write("f.csv", HEAD + "a,it opens\nb,it closes\n"))
    scores = told.scores(["it opens", "it opens"], told.conversations("train"))
    assert list(scores) == ["exact_match", "token_f1"]
    assert scores["exact_match"].mean == 0.5 and scores["token_f1"].mean == 0.75


def examples(*lengths: tuple[int, int]) -> tuple[list[Tokens], list[Conversation]]:
    """Examples of so many tokens in the prompt and in all."""
    made = [Tokens(np.arange(total), np.r_[np.zeros(prompt), np.ones(total - prompt)]) for prompt, total in lengths]
    return made, [Conversation((), f"f.csv, line {number}") for number in range(2, len(lengths) + 2)]


def test_rows_that_fit_are_left_alone() -> None:
    made, rows = examples((5, 10), (2, 3))
    kept, warnings = fit_context(made, rows, 10)
    assert [len(example.ids) for example in kept] == [10, 3] and not warnings


def test_one_long_row_in_a_hundred_is_cut_and_told() -> None:
    made, rows = examples(*[(5, 10)] * 99, (5, 12))
    kept, (told,) = fit_context(made, rows, 10)
    assert len(kept) == 100 and len(kept[-1].ids) == len(kept[-1].weights) == 10
    assert told == "rows cut to the model's 10 tokens: 1 of 100, as f.csv, line 101 (12 tokens)"


@pytest.mark.parametrize(
    ("lengths", "overlong", "told"),
    [
        ([(5, 10), (5, 12)], "error", "rows longer than the model's 10 tokens: 1 of 2, as f.csv, line 3 (12 tokens)"),
        ([*[(5, 10)] * 200, (10, 12)], "error", "which would teach nothing: 1 of"),
        ([(5, 10), (10, 12)], "truncate", "which would teach nothing: 1 of"),
        ([(5, 11), (10, 12)], "drop", "no row is left"),
    ],
)
def test_too_many_or_empty_rows_are_refused(lengths: list[tuple[int, int]], overlong: Overlong, told: str) -> None:
    made, rows = examples(*lengths)
    with pytest.raises(DataError) as raised:
        fit_context(made, rows, 10, overlong)
    assert told in str(raised.value) and "longer context" in str(raised.value)


def test_long_rows_are_cut_or_left_out_if_asked() -> None:
    made, rows = examples((5, 10), (5, 12), (9, 13))
    kept, (told,) = fit_context(made, rows, 10, "truncate")
    assert [len(example.ids) for example in kept] == [10, 10, 10] and told.startswith("rows cut to the model's 10 tokens: 2 of 3")
    kept, (told,) = fit_context(made, rows, 10, "drop")
    assert len(kept) == 1 and told == "rows left out, too long for the model's 10 tokens: 2 of 3, as f.csv, line 4 (13 tokens)"


def test_the_example_is_without_warnings_and_holds_out_paraphrases_of_known_facts() -> None:
    told = FileSource(path=str(FAQ), strict=True)
    assert told.warnings() == [] and [len(told.conversations(name)) for name in SPLITS] == [160, 20, 20]
    facts = defaultdict(set)
    for name in SPLITS:
        for row in told.conversations(name):
            facts[row.completion].add(name)
    assert 38 <= len(facts) <= 60
    assert all("train" in held for held in facts.values())


@pytest.mark.slow
def test_thirty_thousand_rows_are_read_in_seconds(write: Write) -> None:
    content = HEAD + "".join(f'"What is number {n}, please?\nTell me.","It is ""{n}"", of course, as everyone knows."\n' for n in range(30_000))
    lines = "".join(json.dumps({"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]}) + "\n" for n in range(30_000))
    for path in (write("f.csv", content), write("f.jsonl", lines)):
        began = time.process_time()
        assert len(FileSource(path=str(path)).conversations("train")) == 24_000
        assert time.process_time() - began < 5
