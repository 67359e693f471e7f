"""Training on another reward than the world's: the gold return stands beside it in every record, and resuming loses none of it."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import SMALL, built_here, start_here
from test_resume import Impatient, metrics, same

from framework.errors import ConfigError, TrainingError
from framework.experiment import Interrupted
from framework.rewards.proxy import Proxy
from framework.types import Floats, Step

TINY = (
    *SMALL,
    "algo.total_steps=768",
    "experiment.curve_points=2",
    "experiment.episodes=8",
    "experiment.curve_episodes=8",
    "experiment.climb_episodes=8",
    "algo.learning_rate=3e-3",
    "reward=proxy",
)


@pytest.mark.slow
def test_gold_stands_beside_the_proxy_and_resuming_loses_none_of_it(tmp_path: Path) -> None:
    start_here(tmp_path / "whole", *TINY)
    rows = metrics(tmp_path / "whole").values()
    rollouts = [row for row in rows if "rollout/reward" in row]
    assert rollouts and all(np.isfinite([row["rollout/gold_return"], row["rollout/reward"]]).all() and row["reward/abstained"] == 0 for row in rollouts)
    assert all(row["rollout/gold_return"] != row["rollout/reward"] for row in rollouts)
    assert not any("rollout/return" in row for row in rows), "which return?"
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary["reward"] == "proxy"
    looks = summary["climbed"]["ledger"]
    assert summary["climbed"]["warned"].keys() == {"correlation"}
    assert looks and all(-1 <= look["signals"]["correlation"]["mean"] <= 1 and look["reward"]["low"] <= look["reward"]["mean"] for look in looks)
    path = summary["climbed"]["path"]
    assert [steps for steps, _ in path] == [0, 512, 768] and path[0][1]["kl"] == 0 < path[-1][1]["kl"]
    assert "proxy" in (tmp_path / "whole" / "report.html").read_text()

    experiment, run = built_here(tmp_path / "halves", *TINY)
    with pytest.raises(Interrupted):
        experiment.run(replace(run, parts={**run.parts, "algo": Impatient(run.algorithm, 2, signal.SIGUSR1)}))
    run.tracker.close()
    start_here(tmp_path / "unused", f"resume={tmp_path / 'halves'}")
    same(tmp_path / "whole", tmp_path / "halves")

    start_here(tmp_path / "judged", "experiment=evaluate", f"checkpoint={tmp_path / 'halves'}", "experiment.episodes=4", "tracker=none")
    assert json.loads((tmp_path / "judged" / "summary.json").read_text())["reward"] == "proxy", "a later judgement says what was trained on"


class Faulty(Proxy):
    """Fails one time in five."""

    asked = 0

    def score(self, turns: Sequence[Step]) -> Floats:
        self.asked += 1
        return super().score(turns) if self.asked % 5 else None  # type: ignore[return-value]


@pytest.mark.slow
def test_a_reward_that_fails_too_often_stops_the_run(tmp_path: Path) -> None:
    experiment, run = built_here(tmp_path / "run", *TINY)
    with pytest.raises(TrainingError, match=r"Faulty gave no usable reward for \d+ of the last \d+ turns.*experiment.most_abstained"):
        experiment.run(replace(run, parts={**run.parts, "reward": Faulty()}))
    run.tracker.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("reward=gould",), "did you mean 'gold'?"),
        (("reward=judge",), "reward.model: must be given"),
        (("reward=function",), "reward.function: must be given"),
        (("reward=function", "reward.function=os.getcwd"), "outside the packages that may be built from"),
        (("reward=function", "reward.function=framework.ledger.KEPT"), "framework.ledger.KEPT is no function but int"),
        (("reward=graders",), "reward.grader: must be given"),
        (("reward=graders", "reward.grader={type: string_chek}"), "did you mean 'string_check'?"),
        (("reward=graders", "reward.grader={type: python, source: 'def grade(sample, item): return 1'}"), "in no sandbox"),
        (("reward=composite", "+reward.gates.glod=0"), "gates: there is no part 'glod'; did you mean 'gold'?"),
        (("reward=composite", "reward.sequence=[glod]"), "sequence: there is no part 'glod'; did you mean 'gold'?"),
        (("reward=composite", "~reward.weights.proxy"), "parts and weights must have the same names"),
        (("reward._target_=framework.algorithms.sb3.PPO",), "reward"),
        (("experiment.most_abstained=2",), "experiment.most_abstained"),
    ],
)
def test_a_reward_that_cannot_be_is_refused_at_once(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        built_here(tmp_path / "run", *SMALL, *arguments)
    assert told in str(raised.value)
