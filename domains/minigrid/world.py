"""BabyAI's levels as text worlds; the expert is the BabyAI bot."""

from __future__ import annotations

import os
from pathlib import Path

import gymnasium

from framework.config import Count
from framework.errors import ConfigError, MissingExtraError
from framework.interfaces import SPLITS, World
from framework.rollout import Choose
from framework.types import Bools
from framework.worlds.gym_worlds import GymWorld
from framework.worlds.played import PlayedDomain
from framework.worlds.wordings import bank_of

_WORDINGS = Path(__file__).parent / "wordings"
_DONE = 6


class BabyAI(PlayedDomain):
    """A level of BabyAI (Chevalier-Boisvert et al., 2019): a mission in words, a view of seven by seven cells, seven acts.

    The reward is MiniGrid's: 1 - 0.9 t / `max_steps` for a mission done in t acts, else 0. Acts that could do nothing are not allowed.

    Args:
        level: its gymnasium id.
        shift_level: of the split `shift`.
        max_steps: acts after which an episode is cut off, and the reward's clock.
        episodes: of each split in which random acts and the bot are played for comparison.
    """

    name = "minigrid"
    acts = ("turn left", "turn right", "go forward", "pick up", "drop", "toggle", "done")
    splits = SPLITS

    def __init__(self, level: str, shift_level: str, max_steps: Count, episodes: Count) -> None:
        super().__init__(episodes)
        self.level, self.shift_level, self.max_steps = level, shift_level, max_steps

    @property
    def environment(self) -> str:  # type: ignore[override]
        """See `Domain`: the level without the family and the version."""
        return self.level.removeprefix("BabyAI-").rpartition("-v")[0]

    def make(self, split: str) -> GymWorld:
        """See `Domain`; the test split has wordings of its own, the split `shift` another level.

        Raises:
            MissingExtraError: minigrid is not installed.
            ConfigError: there is no such level.
        """
        setting = "shift_level" if split == "shift" else "level"
        level = str(getattr(self, setting))
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        try:
            from domains.minigrid.describer import Describer, allowed
        except ModuleNotFoundError as error:
            raise MissingExtraError("package 'minigrid'", "minigrid") from error
        try:
            env = gymnasium.make(level, disable_env_checker=True, max_steps=self.max_steps)
        except gymnasium.error.Error as error:
            raise ConfigError(f"domain.worlds.{self.environment}.{setting}", f"gymnasium does not make {level!r}: {error}") from error
        describer = Describer(bank_of(_WORDINGS, split, self.rehearsal))
        return GymWorld(env, self.acts, describer, self.max_steps, allowed)

    def expert(self, world: World, number: int) -> Choose:
        """The bot, which knows the whole grid it has seen and can be led off its way; where it gives up it says `done`."""
        from minigrid.utils.baby_ai_bot import BabyAIBot, DisappearedBoxError

        assert isinstance(world, GymWorld)
        bot, taken = BabyAIBot(world.env), world.taken

        def choose(world: World, mask: Bools) -> int:
            try:
                return int(bot.replan(taken[-1] if taken else None))
            except (AssertionError, DisappearedBoxError):
                return _DONE

        return choose
