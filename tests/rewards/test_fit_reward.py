"""The whole chain at the smallest size: pairs in files, a fitted reward, and a run that learns from it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from preferred import preferences, write

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("reliability", "tuning")]
from micro import write_micro
from runs import QUICK, SMALL, built_here, start_here

from framework.checkpoint import open_checkpoint
from framework.errors import CheckpointError, ConfigError

FIT = ("experiment=fit_reward", "data=preferences", "lm=tfidf", "lm.max_features=24", "threads=1", "tracker=none")
TINY = (*QUICK, *SMALL, "algo.total_steps=512", "experiment.curve_points=1", "experiment.episodes=8", "experiment.curve_episodes=8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs in a file for each split."""
    made = tmp_path_factory.mktemp("pairs")
    for seed, (split, count) in enumerate({"train": 300, "validation": 80, "test": 120}.items()):
        write(made / f"{split}.jsonl", preferences(count, seed))
    return made


def fitted(folder: Path, directory: Path, *more: str) -> dict[str, object]:
    start_here(directory, *FIT, f"data.path={folder}", "reward.fitting.learning_rate=1e-2", "reward.fitting.batch_size=32", "reward.shape.width=16", *more)
    told: dict[str, object] = json.loads((directory / "summary.json").read_text())
    return told


@pytest.mark.slow
@pytest.mark.parametrize("reward", ["bradley_terry", "ensemble"])
def test_a_reward_is_fitted_reported_and_trained_on(reward: str, folder: Path, tmp_path: Path) -> None:
    told = fitted(folder, tmp_path / "rm", f"reward={reward}", "experiment.controls=null")
    test = told["test"]
    assert isinstance(test, dict) and test["accuracy"]["mean"] > 0.6 and test["bayes_gap"]["mean"] < 0.15
    assert ("disagreement" in test) == (reward == "ensemble")
    validation = told["validation"]
    assert isinstance(validation, dict) and validation["bayes_gap"]["mean"] < 0.15
    assert told["pairs"] == {"train": 300, "validation": 80, "test": 120} and told["reward"] == reward
    assert isinstance(told["controls"], dict) and told["controls"].keys() == {"longer", "fewer_turns"}
    assert (tmp_path / "rm" / "learning_curve.png").stat().st_size > 10_000
    page = (tmp_path / "rm" / "report.html").read_text()
    assert "gold_correlation" not in test and "all situations" not in page, "gold of each side is in no column"
    assert "the most that is possible" in page and "By difference in gold" in page
    assert open_checkpoint(tmp_path / "rm")[1]["reward"] == reward
    chosen = (f"reward={reward}", f"reward.path={tmp_path / 'rm'}", "reward.shape.width=16", "lm.max_features=24")
    start_here(tmp_path / "run", *TINY, *chosen)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any({"rollout/gold_return", "rollout/reward"} <= row.keys() for row in rows)
    assert any("reward/disagreement" in row for row in rows) == (reward == "ensemble")


@pytest.mark.slow
def test_a_whole_language_model_is_fitted_and_trained_on_by_a_policy_with_another(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_micro(tmp_path / "micro")
    control = "experiment.controls={counts: {_target_: framework.lm.tfidf.TfidfEncoder, max_features: 24}}"
    talking = (*FIT[:2], *FIT[4:], "reward=sequence", "lm=tiny", f"lm.path={model}", "adapter=full", f"data.path={folder}")
    start_here(tmp_path / "rm", *talking, "reward.fitting.learning_rate=3e-3", "experiment.controls=null", control)
    told = json.loads((tmp_path / "rm" / "summary.json").read_text())
    assert told["reward"] == "sequence" and told["controls"].keys() == {"counts", "longer", "fewer_turns"}
    shown = " ".join(capsys.readouterr().out.split())
    assert f"train on it: python run.py reward=sequence reward.path={tmp_path / 'rm'}" in shown and "lm=tiny (full)" in shown
    start_here(tmp_path / "run", *TINY, "reward=sequence", f"reward.path={tmp_path / 'rm'}")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any({"rollout/gold_return", "rollout/reward"} <= row.keys() for row in rows)


@pytest.mark.slow
def test_controls_stand_beside_and_the_same_reader_is_not_fitted_twice(folder: Path, tmp_path: Path) -> None:
    control = "experiment.controls={plain: {_target_: framework.lm.tfidf.TfidfEncoder, max_features: 3}}"
    told = fitted(folder, tmp_path / "rm", "experiment.controls=null", control)
    assert isinstance(told["controls"], dict) and set(told["controls"]) == {"plain", "longer", "fewer_turns"}
    same = fitted(folder, tmp_path / "same", "experiment.controls=null", control.replace("3", "24"))
    assert isinstance(same["controls"], dict) and set(same["controls"]) == {"longer", "fewer_turns"}


@pytest.mark.slow
def test_gold_in_the_file_gives_the_best_of_n_and_a_column_gives_subsets(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "validation", "test"):
        rows = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
        for number, row in enumerate(rows):
            row |= {"chosen_gold": row["margin"], "rejected_gold": 0.0, "subset": "odd" if number % 2 else "even"}
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    told = fitted(tmp_path, tmp_path / "rm", "experiment.controls=null", "experiment.apart=odd")
    test = told["test"]
    assert isinstance(test, dict) and test["by_subset"].keys() == {"odd", "even"}
    assert test["by_subset"]["even"]["accuracy"] == test["accuracy"], "what is apart counts for nothing else"
    assert test["by_subset"]["even"]["distance"] == test["distance"] > 0
    assert isinstance(told["pairs"], dict) and told["pairs"]["test"] == -(-len(rows) // 2)
    page, shown = (tmp_path / "rm" / "report.html").read_text(), " ".join(capsys.readouterr().out.split())
    assert "even" in page and "most of them of different situations" in page and "trajectories of all situations taken together" in page
    assert "Over trajectories: with gold, trajectories of all situations taken together." in shown and f"{test['gold_correlation']:.3f}" in shown
    assert list(test["best_of"]["gold"].values()) == sorted(test["best_of"]["gold"].values())
    assert test["best_of"]["reward"]["1"] == pytest.approx(test["best_of"]["gold"]["1"])


@pytest.mark.slow
def test_what_does_not_fit_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    fitted(folder, tmp_path / "rm", "experiment.controls=null")

    def prepared(*more: str) -> None:
        _, run = built_here(tmp_path / "run", *TINY, "reward=bradley_terry", "reward.shape.width=16", *more)
        run.reward.prepare([])

    path = f"reward.path={tmp_path / 'rm'}"
    with pytest.raises(CheckpointError, match=r"reader.max_features is 24 there and 200 here.*\+lm@reward.reader"):
        prepared(path)
    prepared(path, "+lm@reward.reader=tfidf", "reward.reader.max_features=24")
    with pytest.raises(ConfigError, match=re.escape("reward.path: must be given")):
        prepared()
    with pytest.raises(ConfigError, match="CausalLM does not go with BradleyTerry, which takes LineEncoder"):
        built_here(tmp_path / "run", "algo=grpo", "reward=bradley_terry", path)
    with pytest.raises(ConfigError, match="TfidfEncoder does not go with SequenceReward, which takes CausalLM"):
        start_here(tmp_path / "lines", *FIT, f"data.path={folder}", "reward=sequence")
    with pytest.raises(ConfigError, match="FitReward cannot use Gold, which is no FittedReward; choose one of: bradley_terry, ensemble, sequence"):
        start_here(tmp_path / "gold", *FIT, f"data.path={folder}", "reward=gold")
