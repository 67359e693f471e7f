"""Text worlds with named acts: the gymnasium bookkeeping that every one of them shares."""

from __future__ import annotations

import string
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np

from framework.interfaces import World
from framework.types import Bools, Transition

CHARSET = "".join(c for c in string.printable if c not in "\t\r\x0b\x0c") + "£€–’…"


class TextWorld(World):
    """A world whose observation is the lines written so far.

    A subclass says how an episode begins, what an act does and which acts are allowed. An act that the mask forbids changes
    nothing but the clock and is charged to the cost `format`.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"]}

    def __init__(self, acts: Sequence[str], max_steps: int, max_characters: int = 2_000) -> None:
        self.acts, self.max_steps = tuple(acts), max_steps
        self.action_space = gymnasium.spaces.Discrete(len(self.acts))  # type: ignore[assignment]
        self.observation_space = gymnasium.spaces.Text(max_characters, min_length=0, charset=CHARSET)
        self.render_mode = "ansi"
        self.lines: list[str] = []
        self.steps = 0

    @abstractmethod
    def begin(self, rng: np.random.Generator, options: Mapping[str, Any]) -> list[str]:
        """Draws a new episode and returns its opening lines."""

    @abstractmethod
    def act(self, action: int) -> Transition:
        """Carries out an allowed act; adds to `self.lines`."""

    @abstractmethod
    def get_world(self) -> dict[str, Any]:
        """The episode's own state, as plain JSON."""

    @abstractmethod
    def set_world(self, state: Mapping[str, Any]) -> None:
        """Restores what `get_world` returned."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Starts an episode; the same seed gives the same one."""
        super().reset(seed=seed)
        self.steps = 0
        self.lines = self.begin(self.np_random, options or {})
        return self.render(), self._info(Transition({}))

    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Takes a named act by its number."""
        return self._advance(self.act(int(action))) if self.action_mask()[action] else self.idle()

    def idle(self) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """See `World`."""
        return self._advance(Transition({}, {"format": 1.0}))

    def render(self) -> str:  # type: ignore[override]
        """The observation: all lines so far."""
        return "\n".join(self.lines)

    def get_state(self) -> dict[str, Any]:
        """Lines, clock, random generator and the episode's own state, as plain JSON."""
        return {"lines": list(self.lines), "steps": self.steps, "rng": self.np_random.bit_generator.state, "world": self.get_world()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restores what `get_state` returned."""
        self.lines, self.steps = list(state["lines"]), int(state["steps"])
        self.np_random.bit_generator.state = state["rng"]
        self.set_world(state["world"])

    def abandoned(self) -> float:
        """What it earns to let the clock run out. Where every way to end an episode costs something, silence must not be the cheapest."""
        return 0.0

    def _advance(self, done: Transition) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        truncated = not done.terminated and self.steps >= self.max_steps
        if truncated and (lost := self.abandoned()):
            done = replace(done, reward_terms={**done.reward_terms, "abandoned": lost}, proxy=done.proxy + lost)
        return self.render(), float(sum(done.reward_terms.values())), done.terminated, truncated, self._info(done)

    def _info(self, done: Transition) -> dict[str, Any]:
        mask: Bools = self.action_mask()
        told = {"reward_terms": dict(done.reward_terms), "costs": dict(done.costs), "proxy": done.proxy}
        return {"action_mask": mask, "action_labels": self.acts, **told}
