"""Days of a recorded share price as a text world; the expert buys and holds."""

from __future__ import annotations

from framework.config import Count, Fraction, Positive
from framework.errors import ConfigError, MissingExtraError
from framework.interfaces import SPLITS, World
from framework.rollout import Choose
from framework.worlds.gym_worlds import GymWorld
from framework.worlds.played import PlayedDomain

_STOCK = 1


class Stocks(PlayedDomain):
    """Google's shares, 2009 to 2018, as gym-anytrading brings them: every day, be in the stock or in cash. Research simulator, not advice.

    An episode is worth the logarithm of what a unit has become, fees paid. Splits are years, the later ones held out. Episodes of a split
    share days, so intervals say how well the split is measured, and nothing of other years or shares.

    Args:
        window: days of prices that are known at the start.
        days: acts of an episode.
        validation_from: share of all days after which they are held out for validation.
        test_from: share after which they are the test's.
        shift_fees: factor on the fees in the split `shift`, whose days are the test's.
        episodes: of each split in which random acts and the expert are played for comparison.
    """

    name = "trading"
    environment = "Stocks"
    acts = ("cash", "stock")
    splits = SPLITS
    proxy = "the package's own reward: points gained by closed positions, before fees"

    def __init__(self, window: Count, days: Count, validation_from: Fraction, test_from: Fraction, shift_fees: Positive, episodes: Count) -> None:
        super().__init__(episodes)
        self.window, self.days, self.shift_fees = window, days, shift_fees
        self.bounds = (0.0, validation_from, test_from, 1.0)

    def make(self, split: str) -> GymWorld:
        """See `Domain`.

        Raises:
            MissingExtraError: gym-anytrading is not installed.
            ConfigError: a split has too few days.
        """
        try:
            from domains.trading.market import DAYS, Stretch, describe
        except ModuleNotFoundError as error:
            raise MissingExtraError("package 'gym-anytrading'", "anytrading") from error
        number = ("train", "validation", "test").index("test" if split == "shift" else split)
        first, last = (int(share * DAYS) for share in self.bounds[number : number + 2])
        if last - first <= self.window + self.days:
            rule = f"leaves {max(0, last - first)} days for the split {split}, and an episode takes {self.window + self.days + 1}"
            raise ConfigError(f"domain.worlds.{self.environment}", f"{rule}; change validation_from or test_from, or take fewer days")
        env = Stretch(self.window, self.days, first, last, self.shift_fees if split == "shift" else 1.0)
        return GymWorld(env, self.acts, describe, self.days)

    def expert(self, world: World, number: int) -> Choose:
        """Buys on the first day and holds: of both fixed positions the better one on the training split."""
        return lambda world, mask: _STOCK
