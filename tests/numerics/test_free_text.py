"""Acting in words: what is understood, what the rubric sees, what it may pay, and what demonstrations say."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from framework.oracles.information_state import Test as Question
from framework.types import Grounds
from framework.worlds.free_text import FreeTextWorld, Phrasebook, free_text, grounds_of, load_phrasebook, sentences
from framework.worlds.interview import Interview, InterviewDomain, InterviewWorld

ACTS = ("ask_sky", "boots", "shoes")
BOOK: dict[str, Any] = {
    "acts": {
        "ask_sky": {"cues": ["^sky", "look/looks like rain", "what + weather", "the forecast"], "say": ["What is the weather?", "The forecast, please."]},
        "boots": {"cues": ["rubber", "no/not shoes", "90%", "don't get wet"], "say": ["Take the rubber ones.", "Boots!"]},
        "shoes": {"cues": ["light ones", "10 percent"], "say": ["Take the light ones.", "Shoes."]},
    },
    "because": ["{say} For {facts}.", "As {facts}: {say}"],
    "never": ["it never rains", "100% dry"],
}
FACTS = {
    "sky": {"wet": ("it pours",), "dry": ("it is sunny", "no cloud is seen")},
    "ground": {"mud": ("the ground is soft",), "stone": ("the ground is hard",)},
}


class SkyWorld(InterviewWorld):
    def opening(self, rng: np.random.Generator) -> list[str]:
        return [f"day {int(rng.integers(10**6))}"]

    def answer(self, test: int, outcome: int, chance: float) -> list[str]:
        return ["sky: " + ("wet", "dry")[outcome]]

    def grounds(self) -> Grounds:
        return grounds_of(FACTS, {"sky": ("wet", "dry")[self.outcomes[0]]} if self.outcomes[0] >= 0 else {})


class Sky(InterviewDomain):
    """Wet or dry; one look at the sky, right nine times in ten; boots or shoes."""

    name, environment, cost_limits = "sky", "Sky", {}

    def interview(self, shifted: bool) -> Interview:
        looks = Question("ask_sky", 0.1, (np.array([[0.9, 0.1], [0.1, 0.9]]),))
        return Interview(
            np.array([[0.5, 0.5]]), (looks,), ACTS[1:], np.array([[0.0, -2.0], [-1.0, 0.0]]), lambda outcomes: np.ones(len(outcomes), dtype=np.int64)
        )

    def make(self, split: str) -> SkyWorld:
        return SkyWorld(self.numbers_of(split))


def written(path: Path, book: Mapping[str, Any]) -> Path:
    file = path / "acts.yaml"
    file.write_text(yaml.safe_dump(dict(book)), encoding="utf-8")
    return file


@pytest.fixture
def book(tmp_path: Path) -> Phrasebook:
    return load_phrasebook(written(tmp_path, BOOK), ACTS)


@pytest.fixture
def sky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sky:
    monkeypatch.setattr(Sky, "phrases", written(tmp_path, BOOK))
    return Sky()


@pytest.mark.parametrize(
    ("text", "act"),
    [
        ("ask_sky", "ask_sky"),  # its own name
        ("Ask sky...", "ask_sky"),
        ("BOOTS!!!", "boots"),  # neither case nor punctuation matters
        ("I say: boots; now", "boots"),
        ("reboots", None),  # whole words only
        ("does it LOOK like rain", "ask_sky"),  # either of the words between which / stands
        ("it looks like rain", "ask_sky"),
        ("it looked like rain", None),
        ("The weather? Tell me what it is", "ask_sky"),  # all parts, in any order
        ("what now", None),  # not all parts
        ("Sky?", "ask_sky"),  # opens with it
        ("the blue sky", None),  # does not
        ("a forecast", "ask_sky"),  # articles are nothing
        ("take shoes", "shoes"),
        ("no shoes", "boots"),  # the longer cue
        ("boots or shoes", None),  # equally long
        ("boots or light ones", "shoes"),
        ("don\u2019t get wet", "boots"),  # apostrophes of either kind, or none
        ("dont get wet", "boots"),
        ("10% of the time", "shoes"),
        ("10 per cent, or 10 percent", "shoes"),
        ("9 percent", None),
        ("mumble", None),
        ("", None),
        ("!?", None),
    ],
)
def test_what_is_understood(book: Phrasebook, text: str, act: str | None) -> None:
    heard = book.understand(text)
    assert (None if heard is None else ACTS[heard]) == act


GROUNDS = Grounds(true=("it is wet", "you own no boots"), false=("it is dry", "own no boots"))


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        ("reason", "Boots, as IT IS WET.", "Boots, as it is wetter."),
        ("no_contradiction", "Shoes: you own no boots.", "Shoes: it is dry and you own no boots."),  # a false phrase inside a true one is not said
        ("no_contradiction", "Shoes.", "Shoes, for they own no boots."),
        ("no_forbidden_claim", "It rains; nothing is dry.", "It never rains."),
        ("no_forbidden_claim", "100 dry days", "100 % dry"),
        ("brief", "word " * 80, "word " * 81),
    ],
)
def test_each_check_of_the_rubric_both_ways(book: Phrasebook, check: str, good: str, bad: str) -> None:
    assert book.rubric(good, GROUNDS)[check] and not book.rubric(bad, GROUNDS)[check]


def test_without_grounds_no_reason_is_asked_for(book: Phrasebook) -> None:
    assert all(book.rubric("Boots.", Grounds()).values())


def test_grounds_follow_what_was_heard() -> None:
    assert grounds_of(FACTS, {}) == Grounds([], [])
    assert grounds_of(FACTS, {"sky": "dry"}) == Grounds(["it is sunny", "no cloud is seen"], ["it pours"])
    assert grounds_of(FACTS, {"ground": "mud", "sky": "wet"}) == Grounds(
        ["the ground is soft", "it pours"], ["the ground is hard", "it is sunny", "no cloud is seen"]
    )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda book: book["acts"].pop("shoes"), "acts differ from the world's in shoes"),
        (lambda book: book["acts"].update(hat={"say": ["A hat."]}), "acts differ from the world's in hat"),
        (lambda book: book["acts"]["boots"].update(say=[]), "nothing to say for boots"),
        (lambda book: book["acts"]["boots"].pop("say"), "nothing to say for boots"),
        (lambda book: book["acts"]["boots"]["say"].append("Take the light ones."), "boots: 'Take the light ones.' as shoes"),
        (lambda book: book["acts"]["boots"]["say"].append("Whatever."), "boots: 'Whatever.' as nothing"),
        (lambda book: book["because"].append("For {facts}."), "needs {say} and {facts}"),
        (lambda book: book["because"].append("{say} {reason} {facts}"), "needs {say} and {facts}"),
    ],
)
def test_a_faulty_phrasebook_is_refused(tmp_path: Path, change: Any, complaint: str) -> None:
    book = deepcopy(BOOK)
    change(book)
    with pytest.raises(ValueError, match=complaint):
        load_phrasebook(written(tmp_path, book), ACTS)


def test_an_act_without_cues_goes_by_its_name(tmp_path: Path) -> None:
    book = {"acts": {act: {"say": [act.replace("_", " ")]} for act in ACTS}}
    assert load_phrasebook(written(tmp_path, book), ACTS).understand("please ask sky") == 0


def test_gibberish_costs_format_and_changes_nothing(sky: Sky) -> None:
    world = free_text(sky, "train")
    shown, _ = world.reset(seed=1)
    text, reward, terminated, truncated, info = world.step("mumble")
    assert (text, reward, terminated, truncated) == (shown, 0.0, False, False)
    assert info["costs"] == {"format": 1.0} and info["act"] is None and "rubric" not in info
    world.step("ask sky")
    assert world.step("ask sky")[4]["costs"] == {"format": 1.0}  # understood, but no longer allowed


def test_words_do_what_the_act_does(sky: Sky) -> None:
    world, plain = free_text(sky, "train"), sky.make("train")
    assert world.reset(seed=5)[0] == plain.reset(seed=5)[0]
    for said, act in (("The forecast, please.", 0), ("Take the rubber ones.", 1)):
        text, _, terminated, _, info = world.step(said)
        expected = plain.step(act)
        assert (text, terminated, info["act"]) == (expected[0], expected[2], ACTS[act])
        assert {name: paid for name, paid in info["reward_terms"].items() if name != "rubric"} == expected[4]["reward_terms"]


@pytest.mark.parametrize("rubric", [0.0, 0.1, 0.2])
def test_the_rubric_pays_its_share_of_the_weight(sky: Sky, rubric: float) -> None:
    world, worth = free_text(sky, "train", rubric), sky.oracle("train").references
    weight = rubric * (worth["optimum"].value - worth["random"].value)
    for said, share in (("Boots, as {true}.", 1.0), ("Boots, as {false}, it never rains.", 0.25), ("Boots.", 0.75)):
        world.reset(seed=2)
        world.step("Sky?")
        grounds = world.world.grounds()
        _, reward, terminated, _, info = world.step(said.format(true=grounds.true[0], false=grounds.false[0]))
        assert terminated and sum(info["rubric"].values()) == 4 * share
        assert info["reward_terms"]["rubric"] == pytest.approx(share * weight)
        assert reward == pytest.approx(sum(info["reward_terms"].values()))


@pytest.mark.parametrize("rubric", [-0.01, 0.21])
def test_style_never_outbids_substance(sky: Sky, rubric: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 0.2"):
        free_text(sky, "train", rubric)


def test_an_act_is_taught_in_the_first_of_its_wordings_alone(book: Phrasebook) -> None:
    rng = np.random.default_rng(0)
    for act, name in enumerate(ACTS):
        assert {book.answer("day 1", act, rng) for _ in range(8)} == {BOOK["acts"][name]["say"][0]}


def test_no_phrasebook_no_words() -> None:
    with pytest.raises(ValueError, match="sky/Sky has no phrasebook"):
        free_text(Sky(), "train")
    with pytest.raises(ValueError, match="sky/Sky has no phrasebook"):
        next(sentences(Sky(), "train", seed=0))


@pytest.mark.parametrize("wander", [0.0, 0.7])
def test_demonstrations_say_the_best_act_and_why_it_ends(sky: Sky, wander: float) -> None:
    book = load_phrasebook(sky.phrases, ACTS)  # type: ignore[arg-type]
    pairs = list(islice(sentences(sky, "train", seed=3, wander=wander), 200))
    assert pairs == list(islice(sentences(sky, "train", seed=3, wander=wander), 200)) != list(islice(sentences(sky, "train", seed=4, wander=wander), 200))
    best = {"wet": "boots", "dry": "shoes"}
    for pair in pairs:
        seen = pair["prompt"].partition("sky: ")[2]
        act = book.understand(pair["completion"])
        assert act is not None and ACTS[act] == best.get(seen, "ask_sky")
        assert any(fact in pair["completion"] for fact in FACTS["sky"].get(seen, ())) == bool(seen)
    asked = sum("sky: " in pair["prompt"] for pair in pairs)
    assert asked == 100 if wander == 0 else 20 < asked < 100  # wandering ends episodes unasked


def test_it_is_a_gymnasium_world(sky: Sky) -> None:
    world = free_text(sky, "train")
    assert isinstance(world, FreeTextWorld) and world.action_space.contains("Boots, please.")
    shown, _ = world.reset(seed=0)
    assert world.observation_space.contains(shown) and world.render() == shown
