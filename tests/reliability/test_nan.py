"""No number that is none is trained on in silence: the run stops, says what it met and what to try, and keeps nothing of it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import QUICK, SMALL, built_here
from safetensors.torch import load_file

from domains.healthcare.newborn_triage import NewbornTriage, NewbornTriageWorld
from framework.errors import TrainingError
from framework.experiment import Run

ROLLOUT = 8 * 32  # steps, with SMALL


class PoisonedWorld(NewbornTriageWorld):
    """Pays no number from some step on."""

    left = math.inf
    poison = math.nan

    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        text, reward, *rest = super().step(action)
        PoisonedWorld.left -= 1
        return text, reward if PoisonedWorld.left > 0 else self.poison, *rest  # type: ignore[return-value]


class Poisoned(NewbornTriage):
    """The line, whose training world is poisoned; its other splits are not."""

    def make(self, split: str) -> NewbornTriageWorld:
        world = super().make(split)
        return PoisonedWorld(world.interview, world.bank, world.utterances) if split == "train" else world


def poisoned(run: Run) -> Run:
    domain = run.domain
    assert isinstance(domain, NewbornTriage)
    bad = Poisoned(domain.numbers, domain.utterances, domain.shift_mix, dict(domain.cost_limits))
    return dataclasses.replace(run, parts={**run.parts, "domain": bad})


def kept_tensors(directory: Path) -> list[torch.Tensor]:
    return [tensor for file in directory.rglob("*.safetensors") for tensor in load_file(file).values()]


@pytest.mark.slow
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_stops_the_run(poison: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, run = built_here(tmp_path, *QUICK, *SMALL)
    monkeypatch.setattr(PoisonedWorld, "poison", poison)
    monkeypatch.setattr(PoisonedWorld, "left", 50 * 50 + 1.5 * ROLLOUT)  # at the most so many in the random episodes before
    with pytest.raises(TrainingError, match=r"reward.*(nan|inf).*check_domain"):
        experiment.run(poisoned(run))
    assert all(tensor.isfinite().all() for tensor in kept_tensors(tmp_path) if tensor.is_floating_point())
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("algo.learning_rate=1e30",),
        ("algo.learning_rate=1e30", "algo.learning_rate_end=null", f"algo.total_steps={ROLLOUT}"),  # in the last update, after which no rollout comes
        ("algo.learning_rate=1e30", "algo.n_epochs=1", f"algo.batch_size={ROLLOUT}"),
        ("algo=a2c", "~algo.batch_size", "algo.learning_rate=1e30"),
        ("algo=trpo", "algo.learning_rate=1e30"),
        ("warm_start=cloning", "warm_start.demonstrations=2000", "warm_start.learning_rate=1e30"),
    ],
    ids=" ".join,
)
def test_weights_that_are_no_numbers_stop_the_run(arguments: tuple[str, ...], tmp_path: Path) -> None:
    small = [argument for argument in (*QUICK, *SMALL) if argument.split("=")[0] not in {a.split("=")[0].lstrip("~") for a in arguments}]
    experiment, run = built_here(tmp_path, *small, *(argument for argument in arguments if not argument.startswith("~")))
    with pytest.raises(TrainingError, match="learning_rate"):
        experiment.run(run)
    assert all(tensor.isfinite().all() for tensor in kept_tensors(tmp_path) if tensor.is_floating_point())
    assert not (tmp_path / "summary.json").exists()
