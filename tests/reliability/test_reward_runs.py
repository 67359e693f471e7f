"""Training on another reward than the world's: the gold return stands beside it in every record, and resuming loses none of it."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import QUICK, SMALL, built_here, start_here
from test_resume import Impatient, metrics, same

from framework.errors import ConfigError, TrainingError
from framework.experiment import Interrupted
from framework.lm.lookup import LookupEncoder
from framework.lm.tfidf import TfidfEncoder
from framework.rewards.composite import Composite
from framework.rewards.proxy import Proxy
from framework.rewards.regret import Regret
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


PARTS = ("+reward@reward.parts.regret=regret", "+reward.weights.regret=2.0", "reward.weights.gold=1.0", "~reward.parts.proxy", "~reward.weights.proxy")


@pytest.mark.slow
def test_a_composite_is_made_of_rewards_of_the_menu_and_each_has_what_it_takes(tmp_path: Path) -> None:
    arguments = (*TINY[:-1], *QUICK, "reward=composite", *PARTS)
    whole = start_here(tmp_path / "whole", *arguments)
    assert isinstance(whole.reward, Composite) and whole.reward.parts.keys() == {"regret", "gold"}
    regret = whole.reward.parts["regret"]
    assert isinstance(regret, Regret) and regret.domain is whole.domain
    rows = [row for row in metrics(tmp_path / "whole").values() if "rollout/reward" in row]
    assert rows and all(row["reward/abstained"] == 0 and row["reward/regret"] < 0 for row in rows)

    experiment, run = built_here(tmp_path / "halves", *arguments)
    with pytest.raises(Interrupted):
        experiment.run(replace(run, parts={**run.parts, "algo": Impatient(run.algorithm, 2, signal.SIGUSR1)}))
    run.tracker.close()
    start_here(tmp_path / "unused", f"resume={tmp_path / 'halves'}")
    same(tmp_path / "whole", tmp_path / "halves")
    judged = start_here(tmp_path / "judged", "experiment=evaluate", f"checkpoint={tmp_path / 'halves'}", "experiment.episodes=4", "tracker=none")
    assert judged.config["reward"] == whole.config["reward"] and judged.identity["reward"] == "composite"


@pytest.mark.slow
def test_parts_are_given_readers_of_their_own_and_composites_may_be_parts(tmp_path: Path) -> None:
    fitted = ("+reward@reward.parts.a=bradley_terry", "+reward@reward.parts.b=ensemble", "+lm@reward.parts.b.reader=lookup")
    inner = ("+reward@reward.parts.c=composite", "+reward@reward.parts.c.parts.regret=regret", "+reward.parts.c.weights.regret=1.0")
    weights = [f"+reward.weights.{name}=1.0" for name in "abc"]
    _, run = built_here(tmp_path, *SMALL, *QUICK, "reward=composite", *fitted, *inner, *weights, "reward.parts.b.members=3", "reward.parts.a.path=there")
    run.tracker.close()
    parts: dict[str, Any] = run.reward.parts  # type: ignore[attr-defined]
    assert type(parts["a"].reader) is type(run.parts["lm"]) is TfidfEncoder and parts["a"].reader is not run.parts["lm"]
    assert isinstance(parts["b"].reader, LookupEncoder) and parts["b"].members == 3
    assert parts["c"].parts["regret"].domain is run.domain
    with pytest.raises(ConfigError, match=r"reward.parts.b: reward.path: must be given"):
        Composite({"b": parts["b"]}, {"b": 1.0}, {}, []).prepare(["x"])


@pytest.mark.slow
def test_a_part_that_the_world_cannot_bear_is_named(tmp_path: Path) -> None:
    pytest.importorskip("gym_anytrading")
    with pytest.raises(ConfigError, match=r"reward.parts.regret: .*trading/Stocks has none"):
        start_here(tmp_path / "run", *TINY[:-1], "domain=trading", "domain.worlds.Stocks.episodes=20", "reward=composite", *PARTS)


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
        (("reward=composite", "+reward@reward.parts.regret=regert"), "did you mean 'regret'?"),
        (("reward=composite", "+reward@reward.parts.judge=judge"), "reward.parts.judge.model: must be given"),
        (("reward=composite", "+reward.parts.regret=regret", "+reward.weights.regret=1"), "reward.parts.regret: input should be an instance of RewardModel"),
        (("reward=composite", "+reward.parts.it._target_=framework.rewards.regret.Regert"), "reward.parts.it._target_: framework.rewards.regret has no"),
        (("reward=composite", "+reward@reward.parts.it=bradley_terry", "+reward.parts.it.pth=x"), "reward.parts.it.pth: BradleyTerry has no such setting"),
        (("reward=composite", "+lm@reward.parts.it=lookup", "+reward.weights.it=1"), "reward.parts.it: input should be an instance of RewardModel"),
        (("reward._target_=framework.algorithms.sb3.PPO",), "reward"),
        (("experiment.most_abstained=2",), "experiment.most_abstained"),
    ],
)
def test_a_reward_that_cannot_be_is_refused_at_once(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        built_here(tmp_path / "run", *SMALL, *arguments)
    assert told in str(raised.value)
