"""The benchmarks of the training passes run, and both ways compute the same; how fast they are is nobody's promise here."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from experiments.benchmarks import dpo_step, grpo_step, head_memory, reward_step, sft_step
from framework.lm.adapters import Full, Lora


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
        told = case["breakdown"]
        assert tuple(told["phases"]) == grpo_step.PHASES and all(seconds > 0 for seconds in told["phases"].values())
        assert sum(told["phases"].values()) == pytest.approx((1 - told["overhead"]) * told["seconds"]) and 0 < told["overhead"] < 0.5
        assert 0 < told["share_of_peak"] == pytest.approx(told["operations"] / told["seconds"] / told["peak"])


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [Full(), Lora()], ids=["full", "lora"])
def test_operations_are_those_that_are_done(adapter: Full | Lora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dpo_step.write_model(tmp_path)
    ours, learnt = grpo_step.Ours(tmp_path, adapter, 2, 32, "float32"), list[Sequence[Any]]()
    score = ours.lm.score
    monkeypatch.setattr(ours.lm, "score", lambda *given: learnt.append(given[0]) or score(*given))

    def linear(x: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
        return 2 * x[-1] * math.prod(out_shape)

    def added(_: Any, x: Sequence[int], __: Any, *, out_shape: Sequence[int], **___: Any) -> int:
        return 2 * x[-1] * math.prod(out_shape)

    unknown_to_torch = {torch.ops.mkldnn._linear_pointwise: linear, torch.ops.aten.addmm_: added}
    with FlopCounterMode(display=False, custom_mapping=unknown_to_torch) as counter:
        ours.step()
    assert grpo_step.operations(ours.lm, learnt[0]) == pytest.approx(counter.get_total_flops(), rel=0.03)


def test_every_way_over_the_head_computes_the_same() -> None:
    found = [head_memory.measure(way, 16, 8, 99, learn=True) for way in head_memory.WAYS[:3]]
    for other in found[1:]:
        assert other["loss"] == pytest.approx(found[0]["loss"])
        assert other["gradient"] == pytest.approx(found[0]["gradient"])
