"""`reward=graders reward.grader={...}`: a published grader pays for what is said."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from framework.config import Positive
from framework.interfaces import RewardModel
from framework.lm.endpoint import Endpoint
from framework.rewards.graders.forms import Graded, grade, members, read_grader
from framework.rewards.graders.grading import GradeError, Grader, Means, sample_of
from framework.types import Floats, Step


class Graders(RewardModel):
    """A grader over turns: the sample is what was said (by who names acts, the name); the item is `observation`, `reward_terms`, `costs`, `proxy` and what
    else the world knows of what it shows: where prompts of data are answered, `completion` and every further column of the row.

    Args:
        grader: in its published form.
        endpoint: where models that score and label are asked, and the one that embeds.
        embedding_model: as the endpoint names it, for text_similarity by cosine; None: there is none.
        python: half of the consent to running a python grader's source; the other half is an environment variable.
        python_time_limit_s: for one run of it.
        python_packages: installed packages that it may import beside Python's own.
    """

    def __init__(
        self,
        grader: dict[str, Any],
        endpoint: Endpoint,
        embedding_model: str | None,
        python: bool,
        python_time_limit_s: Positive,
        python_packages: Sequence[str] = (),
    ) -> None:
        self.grader = read_grader(grader, "reward.grader")
        embed = partial(endpoint.embed, embedding_model) if embedding_model else None
        self.means = Means(endpoint, embed, python, python_time_limit_s, python_packages)
        self.grader.require(self.means)
        self.endpoint = endpoint
        self._paid: dict[str, list[float]] = defaultdict(list)
        self._errors: Counter[str] = Counter()

    def expect(self, turns: Sequence[Step]) -> None:
        """See `RewardModel`: models are asked side by side what they will be asked, and the endpoint remembers; what had no answer is asked again then.

        What a grader cannot fill in yet (`reward_terms`, `costs`, `proxy`) is asked when the turn is scored.
        """
        asking = [grader for grader in members(self.grader).values() if grader.asks]
        if asking:
            distinct = {(turn.observation, turn.reply): turn for turn in turns}
            with ThreadPoolExecutor(self.endpoint.concurrency) as pool:
                list(pool.map(self._ask, product(asking, distinct.values())))

    def score(self, turns: Sequence[Step]) -> Floats:
        """See `RewardModel`; NaN where there is no grade."""
        if self.grader.asks:
            with ThreadPoolExecutor(self.endpoint.concurrency) as pool:
                graded = list(pool.map(self._grade, turns))
        else:
            graded = [self._grade(turn) for turn in turns]
        for each in graded:
            self._errors.update(list(each.errors))
            for name, reward in each.sub_rewards.items():
                self._paid[name].append(reward)
        return np.array([each.reward for each in graded], dtype=np.float64)

    def metrics(self) -> Mapping[str, float]:
        """Means of a multi grader's members, how often each error came up, and what the endpoint was asked, where it is."""
        means = {name: float(np.nanmean(paid)) for name, paid in self._paid.items() if np.isfinite(paid).any()}
        counted = {name: float(count) for name, count in self._errors.items()}
        account = {f"endpoint/{name}": value for name, value in self.endpoint.metrics().items()} if self.grader.asks else {}
        self._paid.clear()
        self._errors.clear()
        return means | counted | account

    def _ask(self, question: tuple[Grader, Step]) -> None:
        grader, turn = question
        with suppress(GradeError):
            grader.grade(sample_of(turn.reply), {**turn.fields, "observation": turn.observation}, self.means)

    def _grade(self, turn: Step) -> Graded:
        world = {"observation": turn.observation, "reward_terms": dict(turn.reward_terms), "costs": dict(turn.costs), "proxy": turn.proxy}
        return grade(self.grader, sample_of(turn.reply), {**turn.fields, **world}, self.means)
