"""A world in words from end to end: lessons, policy gradients on what turns give away, judged by gold, kept and loaded again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from runs import QUICK, start_here
from test_resume import interrupted, metrics

SOME = (
    "preset=words",
    *QUICK,
    "tracker=none",
    "threads=1",
    "warm_start.demonstrations=96",
    "algo.total_steps=160",
    "algo.batch_size=16",
    "experiment.episodes=12",
)
LOOKS = ("experiment=smoke", "experiment.explore_episodes=8", "experiment.curve_points=2", "experiment.curve_episodes=8")
SIZES = {"grpo": ("algo.n_groups=2", "algo.group_size=4", "algo.loss=grpo"), "ppo_text": ("algo.n_episodes=8",)}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_a_run_in_words(name: str, tmp_path: Path) -> None:
    start_here(tmp_path / "run", *SOME, *LOOKS, f"algo={name}", *SIZES[name])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["env_steps"] >= 160 and len(summary["curve"]) >= 2
    assert summary["score_known"]["low"] <= summary["score_known"]["mean"] <= summary["score_known"]["high"] < 1
    assert summary["won"]["episodes"] == 12 - 8 and summary["start"]["score"]["mean"] < 1
    told = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    played = [metrics for metrics in told if "rollout/reward" in metrics]
    assert played[-1]["step"] == summary["env_steps"], "the last batch is told of too"
    assert all(metrics["rollout/reward"] <= 0 and "rollout/gold_return" in metrics for metrics in played)
    kept = (tmp_path / "run" / "checkpoint").resolve()
    start_here(tmp_path / "again", "experiment=evaluate", f"checkpoint={kept}", "experiment.episodes=12", "tracker=none", "threads=1")
    again = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert again["score_known"] == summary["score_known"]


@pytest.mark.slow
def test_a_critic_with_a_trunk_of_its_own_goes_on_as_it_was_and_is_not_left_with_a_finished_policy(tmp_path: Path) -> None:
    arguments = (*SOME, *LOOKS, "algo=ppo_text", "algo.n_episodes=4", "algo.critic_trunk=own", "algo.critic_warmup=0.0")
    start_here(tmp_path / "whole", *arguments)
    interrupted(tmp_path / "halves", 2, *arguments)
    left = {path.name for path in (tmp_path / "halves" / "checkpoint").iterdir()}
    start_here(tmp_path / "unused", f"resume={tmp_path / 'halves'}")
    models = [(tmp_path / run / "checkpoint" / "model.safetensors").read_bytes() for run in ("whole", "halves")]
    assert models[0] == models[1] and metrics(tmp_path / "whole") == metrics(tmp_path / "halves")
    kept = {path.name for path in (tmp_path / "halves" / "checkpoint").iterdir()}
    assert left - kept == {"critic_trunk.safetensors", "training.safetensors", "training.json"}


@pytest.mark.slow
@pytest.mark.parametrize("reward", ["proxy", "regret"])
def test_how_far_it_went_from_what_the_lessons_made_of_it(reward: str, tmp_path: Path) -> None:
    climb = (f"reward={reward}", "experiment.climb_episodes=8", "warm_start.reading=1.0", "algo=grpo", *SIZES["grpo"])
    start_here(tmp_path / "run", *SOME, *LOOKS, *climb)
    path = json.loads((tmp_path / "run" / "summary.json").read_text())["climbed"]["path"]
    assert [steps for steps, _ in path][0] == 0 and len(path) >= 2
    assert path[0][1]["kl"] == pytest.approx(0, abs=1e-3) and path[-1][1]["kl"] > path[0][1]["kl"]
    assert path[-1][1]["reward"]["mean"] != path[-1][1]["gold"]["mean"]
    assert reward != "regret" or all(look["reward"]["mean"] < 0 for _, look in path)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "<h2>The reward that was climbed, and gold</h2>" in page and "have a correlation of" in page and "<q>" in page


@pytest.mark.slow
def test_without_steps_what_the_lessons_made_of_it_is_judged(tmp_path: Path) -> None:
    start_here(tmp_path / "run", *SOME, *LOOKS, "algo=grpo", *SIZES["grpo"], "algo.total_steps=0")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert not {"start", "won"} & summary.keys(), "nothing has been learnt since"
    assert summary["env_steps"] == 0 and [steps for steps, _ in summary["curve"]] == [0] and summary["best"][0] == 0
    kept = (tmp_path / "run" / "checkpoint").resolve()
    again = ("warm_start=none", f"lm.path={kept}", "algo=ppo_text", *SIZES["ppo_text"], "algo.total_steps=0")
    start_here(tmp_path / "again", *SOME[:-4], "experiment.episodes=12", *LOOKS, *again)
    assert json.loads((tmp_path / "again" / "summary.json").read_text())["score_known"] == summary["score_known"]
