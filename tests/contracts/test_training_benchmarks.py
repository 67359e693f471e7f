"""The benchmarks of the training passes run, and both ways compute the same; how fast they are is nobody's promise here."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from experiments.benchmarks import dpo_step, grpo_step, head_memory, reward_step, sft_step


@pytest.mark.slow
@pytest.mark.parametrize(("way", "unit", "count"), [(sft_step, "--examples", 3), (reward_step, "--pairs", 2)], ids=["sft", "reward"])
def test_a_step_of_ours_is_a_step_of_trl(way: ModuleType, unit: str, count: int, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    way.main(["--rounds", "1", unit, str(count), "--out", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())["results"]
    assert found["ours"]["losses"] == pytest.approx(found["trl"]["losses"], abs=1e-4)


@pytest.mark.slow
def test_a_step_of_preferences_is_one_of_trl(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    dpo_step.main(["--rounds", "1", "--pairs", "2", "--out", str(tmp_path / "found.json")])
    for found in json.loads((tmp_path / "found.json").read_text())["results"].values():
        assert found["ours"]["losses"] == pytest.approx(found["trl"]["losses"], abs=1e-4)


@pytest.mark.slow
def test_a_step_from_sampling_to_the_update(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    grpo_step.main(["--rounds", "1", "--prompts", "1", "--out", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())["results"]
    assert set(found) == {"full, 32", "full, 64", "lora, 32", "lora, 64"}
    for case in found.values():  # advantages within a group sum to nothing, and the first pass is on-policy
        assert case["ours"]["losses"] == pytest.approx(case["trl"]["losses"], abs=1e-3)


def test_every_way_over_the_head_computes_the_same() -> None:
    found = [head_memory.measure(way, 16, 8, 99, learn=True) for way in head_memory.WAYS[:3]]
    for other in found[1:]:
        assert other["loss"] == pytest.approx(found[0]["loss"])
        assert other["gradient"] == pytest.approx(found[0]["gradient"])
