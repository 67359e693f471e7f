"""Any gymnasium environment with numbered acts as a text world: somebody only has to say what there is to see."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from framework.errors import ConfigError
from framework.types import Bools, Transition
from framework.worlds.environments import CHARSET, TextWorld

_STRANGE = re.compile(f"[^{re.escape(CHARSET)}]")

Describe = Callable[[Any, Any], Sequence[str]]
"""From an environment (unwrapped) and its observation to what there is to see: one fact a line."""
Allowed = Callable[[Any], Bools]
"""From an environment to the acts allowed now, `[A]`; at least one."""
Charge = Callable[[Any, Mapping[str, Any]], Mapping[str, float]]
"""From an environment after an act, and its `info`, to what that act cost, by name."""


class GymWorld(TextWorld):
    """A gymnasium environment, told in text and acted on by named acts.

    An episode is one seed of the environment, drawn by the world's own generator, and its state is that seed and the acts since: it is
    restored by playing them again, which is exact for every environment whose chance hangs on `reset(seed=...)` alone.
    Where `info` has `reward_terms`, `costs` or `proxy` they are passed on; else the reward is the one term `reward`.

    Args:
        env: what is played; belongs to this world from now on.
        acts: the names of its acts, in the order of its action space.
        describe: what there is to see; only the present is told, so what should be remembered must be said there.
        max_steps: acts after which an episode is cut off, if the environment has not ended it before.
        mask: which acts are allowed; None: all, always.
        costs: what the last act cost; None: what `info` says, if anything.
        max_characters: of an observation.

    Raises:
        ConfigError: another action space, or another number of acts.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        acts: Sequence[str],
        describe: Describe,
        max_steps: int,
        mask: Allowed | None = None,
        costs: Charge | None = None,
        max_characters: int = 2_000,
    ) -> None:
        super().__init__(acts, max_steps, max_characters)
        space = env.action_space
        if not isinstance(space, gymnasium.spaces.Discrete):
            raise ConfigError(_name(env), f"its acts are {space}, which have no names; wrap it so that its action space is Discrete")
        if int(space.n) != len(self.acts):
            raise ConfigError(_name(env), f"it has {space.n} acts, but {len(self.acts)} were named: {', '.join(self.acts)}; name each, in order")
        self.env, self.first = env, int(space.start)
        self.describe, self.mask, self.costs = describe, mask, costs
        self.episode, self.taken, self.cut_off = 0, list[int](), False  # seed of the environment, acts since, whether it ended the episode by its clock

    def begin(self, rng: np.random.Generator, options: Mapping[str, Any]) -> list[str]:
        """See `TextWorld`."""
        return self._restart(int(rng.integers(2**31)))

    def act(self, action: int) -> Transition:
        """See `TextWorld`."""
        self.taken.append(action)
        shown, reward, terminated, self.cut_off, info = self.env.step(self.first + action)
        self.lines = self._told(shown)
        terms = info.get("reward_terms", {"reward": reward})
        costs = info.get("costs", {}) if self.costs is None else self.costs(self.env.unwrapped, info)
        return Transition(_floats(terms), _floats(costs), bool(terminated), float(info.get("proxy", 0.0)))

    def action_mask(self) -> Bools:
        """See `World`."""
        return np.ones(len(self.acts), bool) if self.mask is None else np.asarray(self.mask(self.env.unwrapped), bool)

    def information_state(self) -> tuple[int, ...]:
        """See `World`: no oracle asks for it, and nothing is given away."""
        return (0,)

    def get_world(self) -> dict[str, Any]:
        """See `TextWorld`."""
        return {"episode": self.episode, "taken": list(self.taken)}

    def set_world(self, state: Mapping[str, Any]) -> None:
        """See `TextWorld`; plays the acts again."""
        self._restart(int(state["episode"]))
        for action in state["taken"]:
            self.env.step(self.first + int(action))
            self.taken.append(int(action))

    def close(self) -> None:
        """See `gymnasium.Env`."""
        self.env.close()

    def _restart(self, episode: int) -> list[str]:
        self.episode, self.taken, self.cut_off = episode, [], False
        with contextlib.redirect_stdout(io.StringIO()):  # some tell the screen what they drew and threw away
            shown, _ = self.env.reset(seed=episode)
        return self._told(shown)

    def _advance(self, done: Transition) -> tuple[str, float, bool, bool, dict[str, Any]]:
        text, reward, terminated, truncated, info = super()._advance(done)
        return text, reward, terminated, truncated or (self.cut_off and not terminated), info

    def _told(self, shown: Any) -> list[str]:
        """What the describer says, in characters that an observation may have.

        Raises:
            ConfigError: it is too long, or nothing.
        """
        lines = [line for said in self.describe(self.env.unwrapped, shown) for line in _plain(said).split("\n") if line.strip()]
        length, most = len("\n".join(lines)), int(self.observation_space.max_length)  # type: ignore[attr-defined]
        if not 0 < length <= most:
            rule = f"its describer wrote {length} characters, and an observation has 1 to {most}; say less, or set max_characters"
            raise ConfigError(_name(self.env), rule)
        return lines


def _plain(said: str) -> str:
    """A question mark for every character that an observation cannot have."""
    return _STRANGE.sub("?", said.replace("\t", " "))


def _floats(named: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in named.items()}


def _name(env: gymnasium.Env[Any, Any]) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__
