"""Policies within a KL against linear systems, random rivals and gradients; the experiment on a world of ten states."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from experiments.frontier import Frontier
from framework.errors import ConfigError
from framework.experiment import Run
from framework.gradients.exact import Tables, Truth, solve
from framework.gradients.quarry import Quarry, QuarryModel
from framework.oracles.finite import FiniteProcess
from framework.oracles.frontier import climb, fitted
from framework.types import Floats

MODEL = QuarryModel(4)
PROCESS, TABLES = FiniteProcess(MODEL), Tables.of(MODEL)
RANDOM = PROCESS.mask / PROCESS.mask.sum(axis=1, keepdims=True)


def truth(policy: Floats) -> Truth:
    return solve(TABLES, torch.from_numpy(policy).log())


def drawn(seed: int) -> Floats:
    """A policy that takes every allowed act now and then."""
    weights = np.where(PROCESS.mask, np.random.default_rng(seed).gamma(1.0, size=PROCESS.mask.shape) + 1e-3, 0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def reference() -> Floats:
    return drawn(0)


def test_worth_and_kl_are_those_of_the_linear_systems() -> None:
    way = climb(PROCESS, PROCESS.reward, reference())
    policy = PROCESS.tilted(PROCESS.reward, reference(), 0.3)
    assert PROCESS.divergence(PROCESS.occupancy(policy), reference()) == pytest.approx(float(truth(policy).kl(torch.from_numpy(reference()).log())), rel=1e-8)
    assert way.kl[0] == 0 and way.gold[0] == pytest.approx(float(truth(reference()).value), rel=1e-9)
    assert (np.diff(way.kl) > 0).all() and (np.diff(way.gold) > -1e-9).all() and way.gold == pytest.approx(way.climbed)
    best = PROCESS.solve(PROCESS.reward).max(axis=1)
    assert way.gold[-1] == pytest.approx(float(TABLES.start @ torch.from_numpy(best)), abs=1e-3)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 5.0])
def test_a_tilted_policy_cannot_be_bettered(temperature: float) -> None:
    """By no step towards another one, long or short."""
    base = torch.from_numpy(reference()).log()
    policy = PROCESS.tilted(PROCESS.reward, reference(), temperature)
    assert policy.sum(axis=1) == pytest.approx(1) and not policy[~PROCESS.mask].any()

    def worth(of: Floats) -> float:
        found = truth(of)
        return float(found.value - temperature * found.kl(base))

    for seed, step in itertools.product(range(1, 10), (1e-3, 0.1, 1.0)):
        assert worth((1 - step) * policy + step * drawn(seed)) < worth(policy)


def test_nobody_earns_more_at_the_same_kl() -> None:
    way = climb(PROCESS, PROCESS.reward, reference())
    for seed in range(1, 40):
        occupancy = PROCESS.occupancy(drawn(seed))
        spent = PROCESS.divergence(occupancy, reference())
        bound = way.gold[np.searchsorted(way.kl, spent)] if spent < way.kl[-1] else way.gold[-1]
        assert PROCESS.worth(occupancy).value <= bound + 1e-9


def test_what_is_learnt_nears_the_truth_and_is_the_mean_where_nothing_was_tried() -> None:
    much, little = (fitted(PROCESS, reference(), acts, np.random.default_rng(0)) for acts in (2_000_000, 3))
    assert np.isneginf(much[~PROCESS.mask]).all()
    assert np.abs(much[PROCESS.mask] - PROCESS.reward[PROCESS.mask]).max() < 0.1
    [(_, untried)] = Counter(little[PROCESS.mask].tolist()).most_common(1)
    assert untried >= PROCESS.mask.sum() - 3


def test_who_earns_all_there_is_goes_nowhere() -> None:
    way = climb(PROCESS, np.where(PROCESS.mask, 0.0, -np.inf), reference())
    assert way.kl.tolist() == [0.0] and way.at([0.0, 5.0]) == pytest.approx(way.gold[0])


def run(directory: Path, domain: Any) -> Run:
    return cast(Run, SimpleNamespace(domain=domain, directory=directory, settings=SimpleNamespace(seed=0), identity={"seed": 0}))


def test_the_experiment_says_what_can_be_earned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Frontier("random", (50, 500), seeds=2, budgets=(0.1, 1.0)).run(run(tmp_path, Quarry(4)))
    kept = json.loads((tmp_path / "table.json").read_text())
    assert {name: len(ways) for name, ways in kept["paths"].items()} == {"gold": 1, "proxy": 1, "learnt from 50 acts": 2, "learnt from 500 acts": 2}
    frontier = kept["paths"]["gold"][0]
    for ways in kept["paths"].values():
        for way in ways:
            most = np.interp(way["kl"], frontier["kl"], frontier["gold"])
            assert (np.array(way["gold"]) <= most + 0.02 * kept["optimum"]).all()  # up to the straight lines between what was solved
    assert "learnt from 500 acts" in capsys.readouterr().out and "| gold |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "learning_curve.png").stat().st_size > 10_000 and "the frontier" in (tmp_path / "report.html").read_text()


def test_a_reference_must_draw_lots(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="these do: random"):
        Frontier("heuristic", (50,), seeds=1, budgets=(1.0,)).run(run(tmp_path, Quarry(4)))
