"""The quest giver in words, and as a domain."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from domains.gaming_npc.quest_giver.model import (
    ACTS,
    ASK,
    BUDGETS,
    DIFFICULTIES,
    GOODBYE,
    GUILT,
    PRAISE,
    QUESTS,
    REST,
    SIDES,
    SKIP,
    TYPES,
    WEARINESS,
    Numbers,
    Session,
    SessionModel,
)
from framework.config import Count, Fraction, NonNegative
from framework.types import Bools, Floats, Grounds, Transition
from framework.worlds.environments import TextWorld
from framework.worlds.finite import FiniteDomain
from framework.worlds.free_text import grounds_of
from framework.worlds.wordings import Bank, bank_of, load_bank, pick

_WORDINGS = Path(__file__).parent / "wordings"
_CLOCK = "no one two three four five six seven eight nine ten eleven twelve".split()  # rounds
_WEARY_FROM = (3, 6)  # quests without a rest at which a player flags, and is spent
_STATUS = 2  # lines at the end that are written anew each turn
_DONE = {
    REST: "you: a rest by the fire",
    PRAISE: "you: praise and flattery",
    SKIP: "you: sold them a skip for gems",
    GUILT: "you: made them feel guilty about leaving, so they stay a little",
    GOODBYE: "you: goodbye, until next time",
}
_WIN, _LEAVE, _ANSWER, _WORDS, _LOOKS = range(5)  # what luck decides


class QuestGiverWorld(TextWorld):
    """`gaming_npc/QuestGiver-v0`: one player, one session.

    All luck (the player, wins, walking out, every choice of words) is drawn at reset, by round, so two policies on one seed meet the
    same player with the same luck.
    """

    def __init__(self, model: SessionModel, bank: Bank, utterances: int) -> None:
        super().__init__(ACTS, max_steps=model.longest + 3)
        self.model, self.bank, self.utterances = model, bank, utterances
        self.type = self.skill = 0  # hidden
        self.session = Session(0, -1, -1, 0)
        self._luck: Floats = np.zeros((5, model.longest))

    def begin(self, rng: np.random.Generator, options: Mapping[str, Any]) -> list[str]:
        """Draws the player and all luck; the first chat shows, more or less, whom they turn to, and how much time they have."""
        numbers = self.model.numbers
        self.type = int(rng.choice(len(numbers.type_shares), p=numbers.type_shares))
        self.skill = int(rng.choice(len(numbers.skill_shares), p=numbers.skill_shares))
        hint, budget = int(rng.random() >= self.model.hints[self.type, 0]), int(rng.random() >= numbers.short_share)
        self._luck = rng.random((5, self.model.longest))
        self.session = Session(hint, -1, -1, budget)
        arriving = self._say("player, on arriving", "hint", SIDES[hint], rng.random())
        return [*arriving, *self._say("player, about time", "budget", BUDGETS[budget], rng.random()), *self._status()]

    def action_mask(self) -> Bools:
        """See `World`."""
        return self.model.allowed(self.session)

    def information_state(self) -> tuple[int, ...]:
        """See `World`; at the end, where the last act was chosen."""
        return tuple(self.session)

    def act(self, action: int) -> Transition:
        """Plays a quest or a round of talk, lets the player leave if they will, and lets them say when they must."""
        model, session, luck = self.model, self.session, self._luck[:, self.session.rounds].tolist()
        costs, proxy = model.costs(session, action), model.engagement(action)
        del self.lines[-_STATUS:]
        if action == GOODBYE:
            self.lines.append(_DONE[action])
            return Transition({"coming_back": model.coming_back(session, parted=True)}, costs, terminated=True, proxy=proxy)
        result, terms = 0, {"enjoyment": 0.0}
        if action < len(QUESTS):
            kind, difficulty = divmod(action, len(DIFFICULTIES))
            result = int(luck[_WIN] < model.chance_to_win[self.skill, difficulty])
            terms["enjoyment"] = float(model.liking[self.type, kind] * model.flow[self.skill, difficulty]) * model.attention(session)
            self.lines += self._say(f"{DIFFICULTIES[difficulty]} quest", "outcome", ("lost", "won")[result], luck[_WORDS], n=1)
        elif action == ASK:
            asked = int(session.first >= 0)
            result = int(np.searchsorted(model.answers[self.type].cumsum()[:-1], self._luck[_ANSWER, asked], side="right"))
            self.lines += self._say("player, asked what they like", "likes", TYPES[result], luck[_WORDS])
        else:
            self.lines.append(_DONE[action])
        following = model.after(session, action, result)
        played = following.rounds > session.rounds
        if played and luck[_LEAVE] < model.leaves(following):
            self.lines.append("player: gone without a word")
            return Transition({**terms, "coming_back": model.coming_back(session, parted=False)}, costs, terminated=True, proxy=proxy)
        self.session = following
        if played and model.left(following) == 0:
            self.lines += self._say("player, called away", "must_go", "now", luck[_WORDS])
        self.lines += self._status()
        return Transition(terms, costs, proxy=proxy)

    def grounds(self) -> Grounds:
        """What was said of time and taste (where two answers do not differ), how the quests went, and how tired the player is."""
        session, answers = self.session, {self.session.first, self.session.second} - {-1}
        heard = {
            "time": "called" if self.model.left(session) <= 0 else BUDGETS[session.budget],
            "tally": ("even", "ahead", "behind")[np.sign(session.ahead)],
            "energy": self._energy(),
        }
        if len(answers) == 1:
            heard["likes"] = TYPES[answers.pop()]
        return grounds_of(load_bank(_WORDINGS / "facts.yaml"), heard)

    def get_world(self) -> dict[str, Any]:
        """See `TextWorld`."""
        return {"type": self.type, "skill": self.skill, "session": list(self.session), "luck": self._luck.tolist()}

    def set_world(self, state: Mapping[str, Any]) -> None:
        """See `TextWorld`."""
        self.type, self.skill = int(state["type"]), int(state["skill"])
        self.session, self._luck = Session(*map(int, state["session"])), np.array(state["luck"])

    def _say(self, label: str, topic: str, value: str, chance: float, n: int | None = None) -> list[str]:
        wordings, _ = pick(self.bank[topic][value], n or self.utterances, chance)
        return [f"{label}: {wording}" for wording in wordings]

    def _status(self) -> list[str]:
        """The clock, and how the player looks."""
        rounds = self.session.rounds
        clock = f"clock: {_CLOCK[rounds]} {'round' if rounds == 1 else 'rounds'} played"
        return [clock, *self._say("player's energy", "energy", self._energy(), self._luck[_LOOKS, rounds], n=1)]

    def _energy(self) -> str:
        return WEARINESS[bisect(_WEARY_FROM, self.model.weariness(self.session))]


class QuestGiver(FiniteDomain):
    """Keep a player company: choose quests that suit them and challenge them just enough, and let them go when they must.

    Args:
        numbers: what the world assumes.
        utterances: ways in which the player says one thing.
        shift_type_shares: another mix of players, in the split `shift`.
        shift_skill_shares: ... and of skills.
        cost_limits: violations an episode that are tolerated, by cost.
    """

    name = "gaming_npc"
    environment = "QuestGiver"
    phrases = _WORDINGS / "acts.yaml"
    proxy = "engagement: a minute for every round in session and a bump for flattery or a sale, whether or not anything is enjoyed"

    def __init__(
        self,
        numbers: Numbers,
        utterances: Count,
        shift_type_shares: tuple[Fraction, Fraction, Fraction, Fraction],
        shift_skill_shares: tuple[Fraction, Fraction, Fraction],
        cost_limits: dict[str, NonNegative],
    ) -> None:
        super().__init__()
        self.numbers, self.utterances, self.cost_limits = numbers, utterances, cost_limits
        self.shifted = replace(numbers, type_shares=shift_type_shares, skill_shares=shift_skill_shares)

    def model(self, shifted: bool) -> SessionModel:
        """See `FiniteDomain`."""
        return SessionModel(self.shifted if shifted else self.numbers)

    def make(self, split: str) -> QuestGiverWorld:
        """See `Domain`."""
        model = self.model_of(split)
        assert isinstance(model, SessionModel)
        return QuestGiverWorld(model, bank_of(_WORDINGS, split, self.rehearsal), self.utterances)
