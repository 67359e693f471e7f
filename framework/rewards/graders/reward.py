"""`reward=graders reward.grader={...}`: a published grader pays for what is said."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from framework.config import Positive
from framework.interfaces import RewardModel
from framework.lm.endpoint import Endpoint
from framework.rewards.graders.forms import grade, read_grader
from framework.rewards.graders.grading import Means, sample_of
from framework.types import Floats, Step


class Graders(RewardModel):
    """A grader over turns: the sample is what was said (by who names acts, the name); the item is `observation`, `reward_terms`, `costs` and `proxy`.

    Args:
        grader: in its published form.
        endpoint: where models that score and label are asked.
        python: half of the consent to running a python grader's source; the other half is an environment variable.
        python_time_limit_s: for one run of it.
    """

    def __init__(self, grader: dict[str, Any], endpoint: Endpoint, python: bool, python_time_limit_s: Positive) -> None:
        self.grader = read_grader(grader, "reward.grader")
        self.means = Means(endpoint, None, python, python_time_limit_s)
        self.grader.require(self.means)
        self._paid: dict[str, list[float]] = defaultdict(list)
        self._errors: Counter[str] = Counter()

    def score(self, turns: Sequence[Step]) -> Floats:
        """See `RewardModel`; NaN where there is no grade."""
        graded = [grade(self.grader, sample_of(turn.reply), _item(turn), self.means) for turn in turns]
        for each in graded:
            self._errors.update(list(each.errors))
            for name, reward in each.sub_rewards.items():
                self._paid[name].append(reward)
        return np.array([each.reward for each in graded], dtype=np.float64)

    def metrics(self) -> Mapping[str, float]:
        """Means of a multi grader's members, and how often each error came up."""
        means = {name: float(np.nanmean(paid)) for name, paid in self._paid.items() if np.isfinite(paid).any()}
        counted = {name: float(count) for name, count in self._errors.items()}
        self._paid.clear()
        self._errors.clear()
        return means | counted


def _item(turn: Step) -> dict[str, Any]:
    return {"observation": turn.observation, "reward_terms": dict(turn.reward_terms), "costs": dict(turn.costs), "proxy": turn.proxy}
