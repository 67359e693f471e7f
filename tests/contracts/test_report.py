"""The table says what the runs say, and a run's page shows hostile text as text."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from experiments.report import Report
from framework.config import CONF
from framework.errors import ConfigError
from framework.evaluation import Evaluation
from framework.reports.report import write_report
from framework.reports.summary import since_the_start, unbeaten
from framework.reports.tables import departures
from framework.reports.tables.finished import Row, rows
from framework.reports.tables.sheets import sheets
from framework.statistics import bootstrap
from framework.types import Episode, Estimate, Reference, Step

MEANS = {"minilm": (0.90, 0.93, 0.99), "tfidf": (0.60, 0.61, 0.59)}  # test scores of three seeds


def around(mean: float, width: float = 0.05) -> dict[str, float]:
    return {"mean": mean, "low": mean - width, "high": mean + width}


def summary(lm: str = "minilm", seed: int = 0, score: float = 0.5, **changed: Any) -> dict[str, Any]:
    references = {"random": -10.0, "best_constant": -6.0, "heuristic": -2.0, "optimum": 0.0, "informed": 1.0}
    rivals = {name: {"return": around(-1.0), "policy_ahead_by": around(score - 0.7)} for name in ("random", "best_constant", "heuristic", "optimum")}
    return {
        "domain": "toy",
        "environment": "Desk",
        "algo": "ppo",
        "policy": "head",
        "lm": lm,
        "adapter": "none",
        "warm_start": "none",
        "seed": seed,
        "episodes": 8,
        "return": around(10 * score - 10),
        "score": around(score),
        "score_known": around(score + 0.01),
        "score_shift": around(score - 0.2),
        "controls": {},
        "yardstick": "random acts score 0 and the optimum 1",
        "references": references,
        "references_shift": references | {"heuristic": -5.0},
        "costs": {"harm": {"mean": 0.25, "limit": 0.1}, "delay": {"mean": 0.5, "limit": None}},
        "costs_of_references": {name: {"harm": 0.05} for name in references},
        "real": {"cases": 300, "return": around(-0.5), "costs": {}, "rivals": rivals},
        "before": around(-9.0),
        "start": {"return": around(-7.0), "score": around(0.3)},
        "won": {"episodes": 6, "return": around(2.0), "score": around(0.2)},
        "best": [2000, -1.0],
        "env_steps": 4096,
        "wall_s": 20.0,
        **changed,
    }


def write(directory: Path, content: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Path:
    directory.mkdir(parents=True)
    (directory / "summary.json").write_text(json.dumps(content))
    if config is not None:
        (directory / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(dict(config))))
    return directory


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for lm, means in MEANS.items():
        for seed, mean in enumerate(means):
            write(tmp_path / "runs" / lm / str(seed), summary(lm, seed, mean))
    return tmp_path / "runs"


def policies(*directories: Path) -> list[Row]:
    return [row for row in rows(directories) if row.runs]


def test_rows_are_means_and_intervals_over_seeds(runs: Path) -> None:
    found = policies(runs)
    assert [row.name for row in found] == ["ppo, lm=tfidf, no warm start", "ppo, lm=minilm, no warm start"]  # the best last
    for row, lm in zip(found, ("tfidf", "minilm"), strict=True):
        assert [run.seed for run in row.runs] == [0, 1, 2]
        assert row.estimates["score"] == bootstrap(MEANS[lm])
        assert min(MEANS[lm]) <= row.estimates["score"].low < np.mean(MEANS[lm]) < row.estimates["score"].high <= max(MEANS[lm])
        assert row.estimates["score_known"].mean == pytest.approx(np.mean(MEANS[lm]) + 0.01)
        assert row.estimates["score_shift"].mean == pytest.approx(np.mean(MEANS[lm]) - 0.2)
        assert row.estimates["real/ahead_of_heuristic"].mean == pytest.approx(np.mean(MEANS[lm]) - 0.7)


def test_references_frame_the_policies(runs: Path) -> None:
    found = rows([runs])
    assert [row.name for row in found if not row.runs] == ["random", "best constant", "heuristic", "optimum"]
    assert [row.estimates["score"].mean for row in found if not row.runs] == [0.0, 0.4, 0.8, 1.0]
    assert found[2].estimates["score_shift"].mean == 0.5  # the shifted world has references of its own
    assert found[-1].name == "optimum"


def test_what_reads_nothing_and_is_not_beaten_is_told() -> None:
    """The best constant scores 0.4, in the shifted world too; what is not clearly above that is said to be so."""
    control = {"closest_line": {"return": around(-3.0), "score": around(0.7)}}
    assert unbeaten(summary(score=0.7, best_known="optimum")) == []
    assert unbeaten(summary(score=0.44, best_known="optimum", controls=control)) == [
        "in unseen wordings always doing the same scores 0.400; the policy is not shown to be better, 0.440 [0.390, 0.490]",
        "in known wordings always doing the same scores 0.400; the policy is not shown to be better, 0.450 [0.400, 0.500]",
        "in the shifted world always doing the same scores 0.400; the policy is not shown to be better, 0.240 [0.190, 0.290]",
        "in unseen wordings closest line, which needs no language model, scores 0.700; the policy is not shown to be better, 0.440 [0.390, 0.490]",
    ]


def test_what_learning_won_is_told_by_episodes_that_chose_nothing() -> None:
    worth = {"random": Reference(-10.0, {}, 0), "optimum": Reference(0.0, {}, 0)}
    yardstick = SimpleNamespace(best="optimum", references=worth, score=lambda values: bootstrap(1 + values / 10))
    world: Any = SimpleNamespace(oracle=lambda split: yardstick)
    start, ended = [-9.0, -9.0, -6.0, -5.0, -4.0, -3.0], np.array([0.0, 0.0, -5.0, -3.0, -3.0, -1.0, 0.0])
    kept = [replace(evaluation("test"), values=ended + 7), replace(evaluation("validation"), values=ended)]
    told = since_the_start(world, start, kept, chosen_by=2)
    assert told["won"]["episodes"] == 4 and told["won"]["return"] == asdict(bootstrap([1, 2, 1, 2]))
    assert told["won"]["score"]["mean"] == pytest.approx(0.15) and told["start"]["score"]["mean"] == pytest.approx(0.4)
    assert since_the_start(world, start, kept, chosen_by=5) == {"start": told["start"]}, "one episode tells no interval"
    assert since_the_start(world, [], kept, chosen_by=2) == {}


def test_where_nothing_is_shown_to_have_been_won_a_run_says_so(tmp_path: Path) -> None:
    told = summary(score=0.7, best_known="optimum", won={"episodes": 6, "return": around(0.4), "score": around(0.04)})
    assert unbeaten(told) == ["in known wordings the policy as learning began; nothing is shown to have been won since, 0.040 [-0.010, 0.090]"]
    (sheet,) = (sheet for sheet in sheets(rows([write(tmp_path / "run", told)])) if sheet.title == "toy/Desk")
    assert dict(zip(sheet.columns, sheet.lines[-2], strict=True))["won by learning"] == "0.040 [-0.010, 0.090]"


def test_what_needs_no_language_model_is_a_row(tmp_path: Path) -> None:
    control = {"closest_line": {"return": around(-7.0), "score": around(0.3)}}
    found = rows([write(tmp_path / "run", summary(controls=control))])
    assert [row.name for row in found if not row.runs] == ["random", "best constant", "heuristic", "closest line", "optimum"]
    assert found[3].estimates["score"] == Estimate(**around(0.3))


def tuned(adapter: str, seed: int, score: float, loss: float, **changed: Any) -> dict[str, Any]:
    def answers(mean: float) -> dict[str, Any]:
        return {"scores": {"right": around(mean), "token_f1": around(mean)}, "loss": around(2.0), "accuracy": around(0.5)}

    said = {"base": answers(0.1), "tuned": answers(score), "others": {"nearest": {"right": around(0.3), "token_f1": around(0.4)}}}
    run = {"data": "faq", "algo": "sft", "lm": "tiny", "adapter": adapter, "seed": seed, "best": [40, loss], "updates": 80, "wall_s": 60.0}
    return {**run, **said, **changed}


def test_tuned_models_stand_beside_baselines_and_the_validation_loss_chooses(runs: Path, tmp_path: Path) -> None:
    for adapter, score, loss in (("full", 0.5, 0.30), ("lora", 0.6, 0.35)):
        for seed in (0, 1, 2):
            write(tmp_path / "tuned" / f"{adapter}-{seed}", tuned(adapter, seed, score + seed / 100, loss))
    found = rows([tmp_path / "tuned", runs])
    here = [row for row in found if row.subject == "faq"]
    assert [row.name for row in here] == ["nearest", "lm=tiny as it was", "sft, lm=tiny (full)", "sft, lm=tiny (lora)"]
    assert here[2].estimates["right"] == bootstrap((0.50, 0.51, 0.52)) and [run.seed for run in here[2].runs] == [0, 1, 2]
    answers = next(sheet for sheet in sheets(found) if sheet.title.startswith("faq"))
    assert answers.columns == ["model", "seeds", "right", "token f1", "loss a token", "validation loss", "updates", "time"]
    assert answers.lines[0][:3] == ["nearest", "", "0.300 [0.250, 0.350]"] and answers.lines[0][4] == ""
    assert [line[0] for line in answers.lines if "lowest validation loss" in line[0]] == ["sft, lm=tiny (full) (lowest validation loss)"]
    assert len({row.subject for row in found}) == 2  # worlds and data in one report


WITHIN = {"score": around(0.8), "costs": {"harm": {"mean": 0.12, "limit": 0.1}}, "excess": 0.02, "prices": {"harm": 3.0}}


def test_runs_within_limits_have_a_sheet_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / "free", summary())
    write(tmp_path / "kept", summary(algo="ppo_lagrangian", constrained={"test": WITHIN, "validation": WITHIN}))
    sheet = next(sheet for sheet in sheets(rows([tmp_path])) if "within cost limits" in sheet.title)
    assert sheet.columns == ["policy", "seeds", "score (test)", "score (known wordings)", "harm ≤ 0.1 (test)", "harm ≤ 0.1 (known wordings)"]
    interval = str(Estimate(**WITHIN["score"]))  # type: ignore[arg-type]
    assert sheet.lines == [["ppo_lagrangian, lm=minilm, no warm start", "1 seed", interval, interval, "0.120", "0.120"]]


def test_worlds_stand_side_by_side_where_there_are_several(runs: Path, tmp_path: Path) -> None:
    assert not any("worlds" in sheet.title for sheet in sheets(rows([runs])))
    for seed in (0, 1):
        write(tmp_path / "other" / str(seed), summary(seed=seed, score=0.7 + seed / 10, environment="Other"))
    write(tmp_path / "faq", tuned("full", 0, 0.5, 0.3))
    found = [sheet for sheet in sheets(rows([tmp_path])) if sheet.title.startswith("2 worlds")]
    assert [sheet.title for sheet in found] == ["2 worlds: score (test)", "2 worlds: known wordings", "2 worlds: shifted world"]
    assert found[0].columns == [
        "world",
        "random",
        "best constant",
        "heuristic",
        "ppo, lm=minilm, no warm start (2 to 3 seeds)",
        "optimum",
    ]  # tfidf is in one of them alone
    assert found[0].lines[1] == ["toy/Other", "0.000", "0.400", "0.800", str(bootstrap((0.7, 0.8))), "1.000"]
    assert found[2].lines[1][3] == "0.500"


def test_safety_costs_stand_beside_their_limits(tmp_path: Path) -> None:
    for seed, mean in enumerate((0.2, 0.3)):
        write(tmp_path / str(seed), summary(seed=seed, costs={"harm": {"mean": mean, "limit": 0.1}, "delay": {"mean": 0.5, "limit": None}}))
    sheet = next(sheet for sheet in sheets(rows([tmp_path])) if "safety costs" in sheet.title)
    assert sheet.columns == ["policy", "seeds", "harm ≤ 0.1", "delay"]
    assert sheet.lines[0] == ["random", "", "0.050", ""]
    assert sheet.lines[-2] == ["ppo, lm=minilm, no warm start", "2 seeds", str(bootstrap((0.2, 0.3))), "0.500"]


def test_what_another_reward_wins_of_gold_is_held_against_what_gold_wins(tmp_path: Path) -> None:
    def curve(*gold: float) -> list[list[Any]]:
        return [[steps, around(mean)] for steps, mean in enumerate(gold)]

    for seed, end in enumerate((-2.0, -4.0)):
        write(tmp_path / f"gold-{seed}", summary(seed=seed, curve=curve(-8.0, end)), {"reward": {"name": "gold"}, "algo": {"steps": 9}})
        write(
            tmp_path / f"other-{seed}", summary(seed=seed, reward="ensemble", curve=curve(-8.0, end, end - 1)), {"reward": {"members": 5}, "algo": {"steps": 9}}
        )
    write(tmp_path / "longer", summary(reward="proxy", curve=curve(-8.0, -9.0)), {"algo": {"steps": 18}})  # gold was not learnt from so
    sheet = next(sheet for sheet in sheets(rows([tmp_path])) if "won by another reward" in sheet.title)
    assert [list(line) for line in sheet.lines] == [
        ["ppo, lm=minilm, no warm start, reward=ensemble", "2 seeds", "-8.000", "-4.000", "-3.000", "5.000 (2 seeds)", str(bootstrap((1.0, 0.6)))]
    ]


def climbed(onset: int | None, **warned: int | None) -> dict[str, Any]:
    return {"ledger": [], "exploited": None if onset is None else {"onset": onset}, "warned": warned}


def test_signals_are_judged_by_the_runs_that_were_exploited_and_by_those_that_were_not(tmp_path: Path) -> None:
    ledgers = [climbed(900, distance=400, correlation=None), climbed(700, distance=600, correlation=800), climbed(None, distance=300, correlation=None)]
    ledgers += [climbed(500, correlation=500)]  # of a reward that doubts nothing
    for seed, ledger in enumerate(ledgers):
        write(tmp_path / str(seed), summary(seed=seed, reward="ensemble", climbed=ledger))
    sheet = next(sheet for sheet in sheets(rows([tmp_path])) if "signals" in sheet.title)
    assert [list(line) for line in sheet.lines] == [
        ["distance", "2 of 2", "300 (100 to 500)", "1 of 1"],
        ["correlation", "2 of 3", "-50 (-100 to 0)", "0 of 1"],
    ]


@pytest.mark.parametrize("group", ["reward", "data", "lm"])
def test_each_seed_may_have_a_fitted_reward_judged_pairs_or_lessons_of_its_own(group: str, tmp_path: Path) -> None:
    def write_run(seed: int, path: str, kl_coef: float) -> None:
        settings = {group: {"path": path}, "algo": {"kl_coef": kl_coef}}
        write(tmp_path / f"{seed}-{path}-{kl_coef}", summary(seed=seed, reward="ensemble"), settings)

    for seed in range(2):
        for kl_coef in (0.0, 0.3):
            write_run(seed, f"rm-{seed}", kl_coef)
    assert [len(row.runs) for row in policies(tmp_path)] == [2, 2]
    write_run(0, "fewer-pairs", 0.3)
    assert [len(row.runs) for row in policies(tmp_path)] == [1] * 5, "with two rewards for one seed each place is told"


def test_how_far_policies_went_is_told_by_look_and_drawn(tmp_path: Path) -> None:
    """Gold that gains d (2 - log d) at distances of each seed's own is found to do so."""
    for seed, far in enumerate((1.0, 1.2)):
        path = []
        for steps, d in [(0, 0.0), (10, 0.5 * far), (20 + 2 * seed, far), (30, 2 * far), (40, 4 * far)]:
            gained = d * (2 - math.log(d)) if d else 0.0
            path.append([steps, {"kl": d**2, "gold": around(5 + gained), "reward": around(d)}])
        write(tmp_path / str(seed), summary(seed=seed, reward="ensemble", climbed=climbed(None) | {"path": path}))
    write(tmp_path / "older", summary(seed=7, reward="proxy", climbed=climbed(None)))
    found = policies(tmp_path)
    looks, height, form = departures.sheets(found)
    assert [line[2] for line in looks.lines] == ["0", "10", "21", "30", "40"] and looks.lines[0][3:] == ["0.000"] * 3
    assert looks.lines[2][3].startswith("1.220 [") and looks.lines[2][4].startswith("2.091 [")
    assert [line[1:] for line in height.lines] == [["2 seeds", "30", "4.880 [4.000, 5.760]", "2.656 [2.614, 2.699]", "0.394 [0.159, 0.628]", "4.88"]]
    assert [line[1:] for line in form.lines] == [["2 seeds", "2.000 [2.000, 2.000]", "1.000 [1.000, 1.000]", "1.00"]] and "ensemble" in form.lines[0][0]
    departures.draw(found, tmp_path / "climbed.png")
    assert (tmp_path / "climbed.png").stat().st_size > 10_000


def test_a_climb_is_told_where_gold_was_highest_what_was_lost_since_and_how_near_would_have_done(tmp_path: Path) -> None:
    def write_run(seed: int, algo: str, *looks: tuple[float, float]) -> None:
        path = [[10 * number, {"kl": kl, "gold": around(gold), "reward": around(number)}] for number, (kl, gold) in enumerate(looks)]
        write(tmp_path / f"{algo}-{seed}", summary(algo=algo, seed=seed, reward="ensemble", climbed=climbed(None) | {"path": path}))

    write_run(0, "ppo", (0.0, 5.0), (0.2, 6.6), (0.9, 7.0), (2.0, 5.5))  # gains 0, 1.6, 2, 0.5
    write_run(1, "ppo", (0.0, 5.5), (0.4, 8.1), (1.1, 9.5), (3.0, 8.5))  # gains 0, 2.6, 4, 3
    write_run(0, "grpo", (0.0, 5.0), (0.2, 6.6), (0.9, 7.0), (0.5, 7.0))  # it came back and was worth as much
    write_run(0, "a2c", (0.0, 5.0), (0.2, 4.0), (0.9, 3.0), (0.5, 2.0))
    _, height, _ = departures.sheets(policies(tmp_path))
    assert height.columns == ["policy", "seeds", "steps", "KL, nats", "gold gained", "lost by the last look", "budget, nats"]
    assert {line[0].split(",")[0]: line[1:] for line in height.lines} == {
        "ppo": ["2 seeds", "20", "1.000 [0.900, 1.100]", "3.000 [2.000, 4.000]", "1.250 [1.000, 1.500]", "0.30"],  # 2.1 is within the interval
        "grpo": ["1 seed", "20", "0.900", "2.000", "0.000", "0.50"],
        "a2c": ["1 seed", "0", "0.000", "0.000", "3.000", "0.00"],
    }


def test_one_seed_keeps_its_own_interval(tmp_path: Path) -> None:
    (row,) = policies(write(tmp_path / "run", summary(score=0.5)))
    assert row.estimates["score"] == Estimate(0.5, 0.45, 0.55)


def test_runs_with_different_settings_are_not_pooled(tmp_path: Path) -> None:
    for rate in (0.001, 0.003):
        for seed in (0, 1):
            config = {"seed": seed, "algo": {"learning_rate": rate, "gamma": 1.0}, "tracker": {"mode": str(rate)}}
            write(tmp_path / f"{rate}-{seed}", summary(seed=seed, score=rate), config)
    assert [(row.name, len(row.runs)) for row in policies(tmp_path)] == [
        ("ppo, lm=minilm, no warm start, algo.learning_rate=0.001", 2),
        ("ppo, lm=minilm, no warm start, algo.learning_rate=0.003", 2),
    ]


def test_policies_are_told_apart_by_the_names_under_which_they_are_chosen(tmp_path: Path) -> None:
    for name in ("generative", "likelihood"):
        write(tmp_path / name, summary("tiny", policy=name), {"policy": {"_target_": f"some.where.{name}"}, "rollout": {"_target_": f"any.{name}"}})
    assert {row.name for row in policies(tmp_path)} == {f"ppo, lm=tiny, no warm start, policy={name}" for name in ("generative", "likelihood")}


def test_where_one_thing_is_changed_at_a_time_only_that_is_told_and_what_it_is_worth(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"plain": {}, "gamma": {"gamma": 0.9}, "whiten": {"details": {"whiten": False}}}
    worth = {"plain": (0.5, 0.6), "gamma": (0.4, 0.55), "whiten": (0.7, 0.6)}
    for name, change in changes.items():
        for seed, score in enumerate(worth[name]):
            config = {"seed": seed, "algo": {"gamma": 1.0, "details": {"whiten": True}} | change}
            write(tmp_path / f"{name}-{seed}", summary(seed=seed, score=score), config)
    write(tmp_path / "plain-2", summary(seed=2, score=0.1), {"seed": 2, "algo": {"gamma": 1.0, "details": {"whiten": True}}})  # nothing to be paired with
    found, plain = policies(tmp_path), "ppo, lm=minilm, no warm start"
    assert [row.name for row in found] == [plain, f"{plain}, algo.gamma=0.9", f"{plain}, algo.details.whiten=False"]
    (sheet,) = (sheet for sheet in sheets(found) if "settings changed" in sheet.title)
    whiten, gamma = str(bootstrap((0.2, 0.0))), str(bootstrap((-0.1, -0.05)))
    assert sheet.lines == [["algo.gamma=0.9", "2", gamma, gamma], ["algo.details.whiten=False", "2", whiten, whiten]]


def test_runs_that_do_not_know_a_setting_are_not_taken_for_those_that_have_its_usual_value(tmp_path: Path) -> None:
    for name, algo in {
        "old": {},
        "plain": {"gamma": 1.0},
        "fast": {"gamma": 1.0, "rate": 2},
        "faster": {"gamma": 1.0, "rate": 3},
        "other": {"gamma": 0.9},
    }.items():
        write(tmp_path / name, summary(seed=0), {"seed": 0, "algo": {"rate": 1} | algo})
    assert len({row.name for row in policies(tmp_path)}) == 5


def test_a_seed_counts_once(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [len(row.runs) for row in policies(runs, runs / "minilm")] == [3, 3]
    assert capsys.readouterr().err == ""  # the same file twice is no news
    write(runs / "again", summary("minilm", 0, 0.95))
    assert [len(row.runs) for row in policies(runs)] == [3, 3]
    assert f"{runs / 'minilm' / '0'} is left out" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "[]", "{}", json.dumps(summary(score=float("nan")))], ids=["cut off", "a list", "empty", "not a number"])
def test_what_cannot_be_read_is_named_and_left_out(runs: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    broken = write(runs / "broken", {}) / "summary.json"
    broken.write_text(content)
    assert [len(row.runs) for row in policies(runs)] == [3, 3]
    assert f"warning: {broken} is left out" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="can be read"):
        rows([broken.parent])


def test_nothing_to_read_is_an_error_that_helps(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"no summary.json below {tmp_path}")):
        rows([tmp_path])
    with pytest.raises(ConfigError, match="give experiment.runs=DIR"):
        rows(Report(runs=None).runs)


@pytest.mark.slow
def test_command_line(runs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "run.py", "experiment=report", f"experiment.runs={runs}", "threads=1", f"hydra.run.dir={tmp_path / 'out'}"]
    done = subprocess.run(command, cwd=CONF.parent, capture_output=True, text=True, check=True, timeout=120)
    assert "3 seeds" in done.stdout
    markdown = (tmp_path / "out" / "table.md").read_text()
    assert f"| ppo, lm=minilm, no warm start | 3 seeds | {bootstrap(MEANS['minilm'])} |" in markdown
    assert "recorded cases (real)" in markdown
    told = json.loads((tmp_path / "out" / "table.json").read_text())
    assert [row["score"]["mean"] for row in told if row["name"] == "optimum"] == [1.0]
    assert [run["seed"] for run in told[-2]["runs"]] == [0, 1, 2]
    assert (tmp_path / "out" / "table.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "out" / "wandb").exists()  # a table is no run to track


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>"


def evaluation(split: str, *steps: Step) -> Evaluation:
    return Evaluation(split, Estimate(-1.0, -1.0, -1.0), None, {}, {}, np.array([-1.0]), [Episode(7, steps, -1.25)])


class Page(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page(directory: Path, told: Mapping[str, Any], *evaluations: Evaluation, title: str = "toy") -> Page:
    return Page(write_report(told, evaluations, directory, title).read_text())


def test_page_has_table_and_stories(tmp_path: Path) -> None:
    steps = (Step("hello", "ask", {"price": -0.25}, {}), Step("hello\nI am rich", "sell_all", {"outcome": 2.0}, {"harm": 1.0, "delay": 0.0}))
    shown = page(tmp_path, summary(), evaluation("test", *steps), evaluation("real", Step("a case", "decline", {}, {})))
    text = " ".join(shown.text.split())
    for expected in (
        "trained, unseen wordings (test) -5.000 [-5.050, -4.950] 0.500 [0.450, 0.550] over 0.250 0.500",
        "heuristic -2.000 0.800 0.050",
        "before its warm start, known wordings -9.000 [-9.050, -8.950]",
        "as learning began, known wordings -7.000 [-7.050, -6.950] 0.300 [0.250, 0.350]",
        "won by learning, known wordings 2.000 [1.950, 2.050] 0.200 [0.150, 0.250]",
        "told by 6 episodes that the policy was not chosen by",
        "trained, shifted world 0.300",
        "limit ≤ 0.1",
        "300 recorded cases (real), scored by what truly happened",
        "Episode 7: value -1.250 2 acts, ends with sell_all hello ask price -0.25 I am rich sell_all outcome +2 harm 1",  # nothing twice
        "a case decline",
    ):
        assert expected in text
    assert [tag for tag, _ in shown.tags].count("details") == 2


def test_page_says_what_it_does(tmp_path: Path) -> None:
    acts = {"sell_all": {"policy": 1.0, "optimum": 0.25}, "": {"policy": 0.5, "optimum": 0.0}}
    told = " ".join(page(tmp_path, summary(acts=acts)).text.split())
    assert "sell_all1.0000.250 (nothing understood)0.5000.000" in told


def test_page_within_limits(tmp_path: Path) -> None:
    told = " ".join(page(tmp_path, summary(constrained=dict.fromkeys(("test", "validation", "shift"), WITHIN))).text.split())
    assert "known wordings 0.800 [0.750, 0.850] over 0.120" in told and "harm ≤ 0.1" in told


def test_page_without_extras(tmp_path: Path) -> None:
    told = {key: value for key, value in summary(costs={}).items() if key not in ("real", "before", "start", "won", "best")}
    shown = page(tmp_path, told, evaluation("test"))
    assert "recorded cases" not in shown.text and "won by learning" not in shown.text
    assert "limit" not in shown.text
    assert "0 acts" in shown.text


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(HOSTILE)
    (tmp_path / "learning_curve.png").write_bytes(b"picture")
    hostile = Step(f"{HOSTILE}\n\ud800", HOSTILE, {HOSTILE: 1.0}, {HOSTILE: 1.0})
    told = summary(lm=HOSTILE, costs={HOSTILE: {"mean": 1.0, "limit": 0.5}})
    told[HOSTILE] = told["real"]
    shown = page(tmp_path, told, evaluation(HOSTILE, hostile), title=HOSTILE)
    assert shown.text.count(HOSTILE) >= 9
    assert "script" not in {tag for tag, _ in shown.tags}
    assert not [name for _, attributes in shown.tags for name in attributes if name.startswith("on") or name in ("href", "style")]
    assert [attributes["src"] for tag, attributes in shown.tags if tag == "img"] == ["data:image/png;base64,cGljdHVyZQ=="]


def test_page_forbids_what_it_does_not_need(tmp_path: Path) -> None:
    policy = next(attributes["content"] for tag, attributes in page(tmp_path, summary()).tags if attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert "script-src" not in policy
