"""Pairs of episodes, written and read again: what stands in them is what the world and the teacher say."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "reliability"))
from runs import QUICK, built_here, start_here
from runs import SMALL as SMALL_RUN

from experiments.collect_preferences import COURTESIES
from framework.config import load_domain
from framework.datasets import SPLITS
from framework.datasets.preferences import PreferenceFile
from framework.errors import ConfigError
from framework.preferences.behaviours import Behaviour, Played, Role, Stage
from framework.seeding import episode_seed
from framework.worlds.free_text import load_phrasebook

SMALL = (
    *QUICK,
    "experiment=collect_preferences",
    "experiment.pairs={train: 150, validation: 20, test: 30}",
    "experiment.pool=256",
    "experiment.hacks=8",
    "threads=1",
)
BRANCH = ("experiment.layouts.episode=0", "experiment.layouts.branch=1")
LINE = load_domain("healthcare", "NewbornTriage")


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("collected") / "run"
    start_here(directory, *SMALL)
    return directory


def rows(directory: Path, split: str = "train") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "preferences" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def replay(split: str, seed: int, acts: list[str]) -> Played:
    numbers = tuple(LINE.acts.index(act) for act in acts)
    return Stage(LINE, split).play([Role(seed, Behaviour("random"), 0, script=numbers, turns=len(numbers))])[0]


def acts_of(row: dict[str, Any], side: str) -> list[str]:
    return [message["content"] for message in row[side] if message["role"] == "assistant"]


def judged_by_the_crowd(directory: Path) -> None:
    spreads = json.loads((directory / "summary.json").read_text())["spread"]
    for row in rows(directory):
        spread = spreads[row["subset"]]
        if abs(row["margin"]) < 0.29 * spread:
            assert (row["label"], row["probability"]) == (0.5, 0.5)
        else:
            assert row["label"] == 1.0 and row["probability"] == pytest.approx(1 / (1 + np.exp(-3.37 * row["margin"] / spread)), abs=1e-5)


@pytest.mark.slow
def test_what_is_written_can_be_read(collected: Path) -> None:
    told = PreferenceFile(path=str(collected / "preferences"))
    assert [len(told.preferences(split)) for split in SPLITS] == [150, 20, 38]
    assert not any("the same, so that" in warning or "under 0.5" in warning for warning in told.warnings())
    assert json.loads((collected / "summary.json").read_text())["train"]["pairs"] == 150


@pytest.mark.slow
def test_a_row_is_what_happened_in_the_world(collected: Path) -> None:
    for row in rows(collected)[:40]:
        for side in ("chosen", "rejected"):
            played = replay("train", row["episode"], acts_of(row, side))
            shown = [message["content"] for message in (*row["prompt"], *row[side]) if message["role"] == "user"]
            assert played.observations == shown
            assert sum(played.regret) == pytest.approx(row[f"{side}_gold"], abs=1e-5)
        assert row["margin"] == pytest.approx(row["chosen_gold"] - row["rejected_gold"], abs=1e-5)


@pytest.mark.slow
def test_the_probability_is_the_teacher_s(collected: Path) -> None:
    judged_by_the_crowd(collected)


@pytest.mark.slow
def test_no_episode_is_in_two_splits(collected: Path) -> None:
    seeds = {split: {row["episode"] for row in rows(collected, split)} for split in SPLITS}
    assert all(len(seeds[split]) == len(rows(collected, split)) for split in SPLITS)
    assert len(set.union(*seeds.values())) == sum(map(len, seeds.values()))
    assert all(seed // 2**28 == number for number, split in enumerate(SPLITS) for seed in seeds[split])


@pytest.mark.slow
def test_behaviours_are_of_mixed_strength(collected: Path) -> None:
    players = {row[f"{side}_by"] for row in rows(collected) for side in ("chosen", "rejected")}
    assert {"random", "heuristic", "heuristic+0.5", "optimum", "optimum+0.25"} <= players
    gold = [(row[f"{side}_by"], row[f"{side}_gold"]) for row in rows(collected) for side in ("chosen", "rejected")]
    means = {name: np.mean([worth for player, worth in gold if player == name]) for name in players}
    assert means["optimum"] == pytest.approx(0.0, abs=1e-6) and means["optimum"] > means["optimum+0.5"] > means["random"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files(collected: Path, tmp_path: Path) -> None:
    start_here(tmp_path / "again", *SMALL)
    start_here(tmp_path / "other", *SMALL, "seed=1")
    names = [f"preferences/{split}.jsonl" for split in SPLITS]
    assert all((tmp_path / "again" / name).read_bytes() == (collected / name).read_bytes() for name in names)
    assert not any((tmp_path / "other" / name).read_bytes() == (collected / name).read_bytes() for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["episode", "branch"])
def test_hacks_are_of_the_test_split_and_the_best_player_is_chosen(collected: Path, tmp_path: Path, layout: str) -> None:
    run = collected
    if layout == "branch":
        run = tmp_path / "run"
        start_here(run, *SMALL, *BRANCH)
    hacks = [row for row in rows(run, "test") if row["subset"] == "hack"]
    assert len(hacks) == 8 and len(rows(run, "test")) == 38 and not any(row["subset"] == "hack" for row in rows(run))
    for row in hacks:
        assert (row["chosen_by"], row["rejected_by"], row["label"], row["chosen_gold"]) == ("optimum", "proxy_optimum", 1.0, pytest.approx(0.0, abs=1e-6))
        assert row["rejected_gold"] < 0


@pytest.mark.slow
def test_one_observation_answered_by_two_acts(tmp_path: Path) -> None:
    start_here(tmp_path / "run", *SMALL, *BRANCH, "teacher=perfect")
    optimum = LINE.oracle("train")
    for row in rows(tmp_path / "run")[:50]:
        assert isinstance(row["prompt"], str) and {row["chosen"], row["rejected"]} < set(LINE.acts) and row["chosen"] != row["rejected"]
        assert row["label"] == 0.5 or (row["margin"] > 0 and row["probability"] == 1.0)
    world, openings = LINE.make("train"), 0
    for row in rows(tmp_path / "run"):  # an act is worth what the oracle says
        if world.reset(seed=row["episode"])[0] == row["prompt"]:
            values = optimum.action_values(np.array([world.information_state()]))[0]
            assert row["margin"] == pytest.approx(values[LINE.acts.index(row["chosen"])] - values[LINE.acts.index(row["rejected"])], abs=1e-5)
            openings += 1
    assert openings > 10


@pytest.mark.slow
def test_two_players_part_in_the_middle_of_an_episode(tmp_path: Path) -> None:
    start_here(tmp_path / "run", *SMALL, *BRANCH, "experiment.turns=2", "teacher=perfect")
    optimum, world, found = LINE.oracle("train"), LINE.make("train"), rows(tmp_path / "run")
    assert {len(acts_of(row, side)) for row in found for side in ("chosen", "rejected")} == {1, 2}
    checked = 0
    for row in found:
        if world.reset(seed=row["episode"])[0] != row["prompt"][0]["content"]:
            continue  # this one parts later
        gold = []
        for side in ("chosen", "rejected"):  # what was done is worth what the oracle says of each act, where it was done
            world.reset(seed=row["episode"])
            lost = 0.0
            for act in map(LINE.acts.index, acts_of(row, side)):
                values = optimum.action_values(np.array([world.information_state()]))[0]
                lost += values[act] - values.max()
                world.step(act)
            gold.append(lost)
        assert [row["chosen_gold"], row["rejected_gold"]] == pytest.approx(gold, abs=1e-5)
        checked += 1
    assert 10 < checked < len(found)


@pytest.mark.slow
def test_both_layouts_in_one_file_each_judged_by_its_own_spread(tmp_path: Path) -> None:
    start_here(tmp_path / "run", *SMALL, "experiment.layouts.branch=2")
    found = rows(tmp_path / "run")
    openings = [row for row in found if row["subset"] == "branch"]
    assert {(row["subset"], row["acts"]) for row in found} == {("episode", "names"), ("branch", "names")} and 80 <= len(openings) <= 120  # two in three of 150
    assert all(len(acts_of(row, side)) == 1 for row in openings for side in ("chosen", "rejected"))
    assert len({row["episode"] for row in found}) == len(found)
    spreads = json.loads((tmp_path / "run/summary.json").read_text())["spread"]
    assert spreads["branch"] < spreads["episode"]
    judged_by_the_crowd(tmp_path / "run")
    told = PreferenceFile(path=str(tmp_path / "run/preferences"))
    assert len(told.preferences("train")) == 150


@pytest.mark.slow
def test_acts_in_words_are_understood_and_courtesy_is_liked(tmp_path: Path) -> None:
    start_here(tmp_path / "run", *SMALL, "experiment.words=true", "teacher.style_bias=2")
    book = load_phrasebook(LINE.phrases, tuple(LINE.acts))
    found, liked = rows(tmp_path / "run"), []
    assert {row["acts"] for row in found} == {"words"}
    for row in found[:40]:
        for side in ("chosen", "rejected"):
            acts = [book.understand(said) for said in acts_of(row, side)]
            assert None not in acts
            played = replay("train", row["episode"], [LINE.acts[act] for act in acts if act is not None])
            assert sum(played.regret) == pytest.approx(row[f"{side}_gold"], abs=1e-5)
    for row in found:
        kind = [acts_of(row, side)[0].startswith(COURTESIES) for side in ("chosen", "rejected")]
        if kind[0] != kind[1] and row["label"] == 1.0:
            liked.append(kind[0])
    assert len(liked) > 30 and np.mean(liked) > 0.7


@pytest.mark.slow
def test_a_trained_policy_may_play(tmp_path: Path) -> None:
    start_here(tmp_path / "trained", *QUICK, *SMALL_RUN)
    players = ("+experiment.behaviours.policy=1", "experiment.behaviours={random: 0, heuristic: 0}", f"checkpoint={tmp_path / 'trained'}")
    start_here(tmp_path / "run", *SMALL[2:], *players)
    assert {row["chosen_by"].split("+")[0] for row in rows(tmp_path / "run")} == {"optimum", "policy"}


@pytest.mark.slow
def test_reward_is_what_was_paid(tmp_path: Path) -> None:
    start_here(tmp_path / "run", *SMALL, "teacher.gold=reward")
    for row in rows(tmp_path / "run")[:20]:
        assert sum(replay("train", row["episode"], acts_of(row, "chosen")).reward) == pytest.approx(row["chosen_gold"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("+experiment.pairs.tset=5",), "experiment.pairs.tset: NewbornTriage has no such split; did you mean 'test'?"),
        (("+experiment.behaviours.optimim=1",), "experiment.behaviours.optimim: nobody of this name can play; did you mean 'optimum'?"),
        (("+experiment.behaviours.informed=1",), "experiment.behaviours.informed: nobody of this name can play"),
        (("experiment.behaviours={random: 0, heuristic: 0}", "experiment.wander=[0.0]"), "all segments are worth the same"),
        (("+experiment.behaviours.policy=1", "lm=tfidf"), "checkpoint: the behaviour policy needs one"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_left(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        start_here(tmp_path, *SMALL, "experiment.pool=20", *arguments)
    assert not [path for path in tmp_path.iterdir() if "preferences" in path.name]


@pytest.mark.slow
def test_too_little_to_ask_about_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("experiments.collect_preferences._DRAWS", 0)
    with pytest.raises(ConfigError, match="experiment.pairs.train: .* were worth asking about"):
        start_here(tmp_path, *SMALL)
    assert not [path for path in tmp_path.iterdir() if "preferences" in path.name]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("teacher.style_bias=1",), "experiment: the teacher likes courtesy"),
        (("experiment.pairs.train=0",), "experiment: needs pairs of the split train"),
        (("teacher.beta=-1",), "experiment.teacher.beta: input should be greater than 0"),
    ],
)
def test_settings_are_checked_before_anything_is_played(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        built_here(tmp_path, *SMALL, *arguments)


def test_what_the_clock_takes_is_lost() -> None:
    """Over all turns, regret is what was worth less than the best; for a flawless player nothing, whatever the luck."""
    seeds = [episode_seed("validation", number) for number in range(20)]
    for played in Stage(LINE, "validation").play([Role(seed, Behaviour("optimum"), 0) for seed in seeds]):
        assert sum(played.regret) == pytest.approx(0.0, abs=1e-9)
    worse = Stage(LINE, "validation").play([Role(seed, Behaviour("random"), 0) for seed in seeds])
    assert all(value <= 1e-9 for played in worse for value in played.regret) and np.mean([sum(played.regret) for played in worse]) < -1
