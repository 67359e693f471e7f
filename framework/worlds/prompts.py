"""Data as a world: a prompt is shown, it is answered in words, and that was the episode. `algo=grpo data=FILE reward=graders ...`.

Gold is how good an answer is by the data's own score (`DataSource.worth`), whatever reward is climbed. What nobody can beat is not known: saying
nothing is the score 0 and the rows' own completions are the score 1, both on the rows that the policy answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from framework.config import Count
from framework.errors import ConfigError
from framework.interfaces import DataSource, Speech, World
from framework.rollout import Choose
from framework.seeding import episode_number
from framework.types import Bools, Conversation, Floats, Message, Transition
from framework.worlds.environments import TextWorld
from framework.worlds.played import PlayedDomain


class Answers(Speech):
    """Whatever is said is an answer, the one act there is; prompts are asked as the data have them."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Conversation]] = {}  # by what is shown of them

    def learn_of(self, rows: Sequence[Conversation]) -> None:
        """Rows that may be shown from now on."""
        for row in rows:
            self._rows.setdefault(shown(row), []).append(row)

    def understand(self, text: str) -> int:
        """See `Speech`."""
        return 0

    def answer(self, shown: str, act: int, rng: np.random.Generator) -> str:
        """See `Speech`: a completion of that prompt."""
        rows = self._rows[shown]
        return rows[int(rng.integers(len(rows)))].completion

    def messages(self, shown: str) -> Sequence[Message]:
        """See `Speech`."""
        return self._rows[shown][0].prompt


class PromptWorld(TextWorld):
    """An episode is a row: the n-th of a split's episodes its n-th row, and from the beginning again when there are no more.

    Args:
        rows: one at least.
        source: says how good an answer is.
        space: of what is shown of the rows.
    """

    def __init__(self, rows: Sequence[Conversation], source: DataSource, space: gymnasium.spaces.Text) -> None:
        super().__init__(("answer",), max_steps=1)
        self.rows, self.source, self.observation_space = rows, source, space
        self.row, self.said, self._next = rows[0], "", 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """See `gymnasium.Env`; without a seed the next row."""
        if seed is not None:
            self._next = episode_number(seed)
        return super().reset(seed=seed, options=options)

    def begin(self, rng: np.random.Generator, options: Mapping[str, Any]) -> list[str]:
        """See `TextWorld`."""
        self.row, self.said = self.rows[self._next % len(self.rows)], ""
        self._next += 1
        return [shown(self.row)]

    def hear(self, said: str) -> None:
        """See `World`: the answer."""
        self.said = said

    def act(self, action: int) -> Transition:
        """See `TextWorld`; an answer of which nothing was heard is empty."""
        worth = self.source.worth(self.said, self.row)
        return Transition({"answer": worth}, terminated=True, proxy=worth)

    def action_mask(self) -> Bools:
        """See `World`."""
        return np.ones(1, bool)

    def information_state(self) -> tuple[int, ...]:
        """See `World`: no oracle asks for it, and nothing is given away."""
        return (0,)

    def fields(self) -> Mapping[str, str]:
        """See `World`: the columns of the row."""
        return {**self.row.fields, "prompt": shown(self.row), "completion": self.row.completion}

    def get_world(self) -> dict[str, Any]:
        """See `TextWorld`."""
        return {"next": self._next, "said": self.said}

    def set_world(self, state: Mapping[str, Any]) -> None:
        """See `TextWorld`."""
        self._next, self.said = int(state["next"]), str(state["said"])
        self.row = self.rows[(self._next - 1) % len(self.rows)]


class Prompts(PlayedDomain):
    """The prompts of some data, to be answered in words.

    Args:
        source: has prompts, completions, and a score of answers.
        episodes: rows of each split, at the most, in which silence and the completions are scored for comparison.
    """

    name = "data"
    acts = ("answer",)
    yardstick = "saying nothing (random) scores 0 and the data's own completions (expert) 1"

    def __init__(self, source: DataSource, episodes: Count = 1_000) -> None:
        super().__init__(episodes)
        self.source, self.environment = source, source.name  # type: ignore[misc]
        self.speech: Answers = Answers()
        self._splits: dict[str, tuple[Sequence[Conversation], gymnasium.spaces.Text]] = {}

    def make(self, split: str) -> PromptWorld:
        """See `Domain`.

        Raises:
            ConfigError: there is no row to show.
        """
        rows, space = self._split(split)
        return PromptWorld(rows, self.source, space)

    def episodes_in(self, split: str) -> int:
        """See `Domain`."""
        return len(self._split(split)[0])

    def controls(self, split: str) -> Mapping[str, Floats]:
        """See `Domain`: what the data's own baselines answer."""
        rows, others = self._split(split)[0], self.source.baselines(split)
        return {name: np.array([self.source.worth(*each) for each in zip(said, rows, strict=True)]) for name, said in others.items()}

    def expert(self, world: World, number: int) -> Choose:
        """See `PlayedDomain`: says what the row says."""

        def choose(world: World, mask: Bools) -> int:
            world.hear(world.fields()["completion"])
            return 0

        return choose

    def _split(self, split: str) -> tuple[Sequence[Conversation], gymnasium.spaces.Text]:
        """Rows, and the space of what is shown of them; a world is made for every episode that is under way, so both are found once."""
        if split not in self._splits:
            if not (rows := self.source.conversations(split)):
                raise ConfigError("data", f"{self.source.name} leaves no row for the split {split}; give more rows")
            self.speech.learn_of(rows)
            texts = [shown(row) for row in rows]
            charset = "".join(sorted(set[str]().union(*texts)))
            self._splits[split] = rows, gymnasium.spaces.Text(max(map(len, texts)), min_length=0, charset=charset)
        return self._splits[split]


def shown(row: Conversation) -> str:
    """A prompt in one text; where it is more than one message, who said what."""
    if len(row.prompt) == 1:
        return row.prompt[0].content
    return "\n".join(f"{message.role}: {message.content}" for message in row.prompt)
