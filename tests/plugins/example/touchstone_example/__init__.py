"""The smallest domain there is: a coin under a cup. One look, two decisions."""

from __future__ import annotations

import numpy as np

from framework.config import Fraction, NonNegative
from framework.oracles.information_state import Test
from framework.types import Ints, Step
from framework.worlds.interview import Interview, InterviewDomain, InterviewWorld

# how a throw is announced, and what is seen where heads or tails is up; the words of the test split are its own
WORDS = {
    "train": ("throw", ("a crown", "the king's face"), ("a number", "the value in digits")),
    "test": ("toss", ("someone's portrait", "a monarch"), ("what it buys", "its worth")),
}


class CoinWorld(InterviewWorld):
    """`example/Coin-v0`: a coin, told in words."""

    def __init__(self, interview: Interview, words: tuple[str, tuple[str, ...], tuple[str, ...]]) -> None:
        super().__init__(interview)
        self.words = words

    def opening(self, rng: np.random.Generator) -> list[str]:
        """How many throws there were before; nothing that matters."""
        return [f"{self.words[0]} {rng.integers(100)}"]

    def answer(self, test: int, outcome: int, chance: float) -> list[str]:
        """What is seen under the cup."""
        said = self.words[1:][outcome]
        return [f"seen: {said[int(chance * len(said))]}"]


class CoinDomain(InterviewDomain):
    """Look under the cup or not, then say heads or tails.

    Args:
        accuracy: chance that a look shows the side that is up.
        price: of a look.
    """

    name, environment = "example", "Coin"
    cost_limits: dict[str, float] = {}

    def __init__(self, accuracy: Fraction, price: NonNegative) -> None:
        super().__init__()
        self.accuracy, self.price = accuracy, price

    def interview(self, shifted: bool) -> Interview:
        """See `InterviewDomain`; in the split `shift` the coin is loaded."""
        right, wrong = self.accuracy, 1 - self.accuracy
        return Interview(
            prior=np.array([[0.4, 0.6] if shifted else [0.5, 0.5]]),
            tests=(Test("look", self.price, (np.array([[right, wrong], [wrong, right]]),)),),
            decisions=("heads", "tails"),
            utilities=np.array([[1.0, -1.0], [-1.0, 1.0]]),
            heuristic=_say_what_is_seen,
        )

    def make(self, split: str) -> CoinWorld:
        """See `Domain`."""
        return CoinWorld(self.numbers_of(split), WORDS["test" if split == "test" else "train"])


def curiosity(turn: Step) -> float | None:
    """A reward of one's own, for reward=function: looking pays, and what is said pays as it does anyway."""
    return 0.5 if turn.act == "look" else sum(turn.reward_terms.values())


def _say_what_is_seen(outcomes: Ints) -> Ints:
    return np.array([0, 1, 2])[outcomes[:, 0] + 1]
