"""The help desk in words, and as a domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from domains.customer_service.help_desk.model import ACTS, CHECKS, DISPATCH, ELSEWHERE, PROFILES, REPAIRS, Desk, Numbers
from framework.config import Count, Fraction, NonNegative, Positive
from framework.types import Bools, Floats, Grounds, Transition
from framework.worlds.environments import TextWorld
from framework.worlds.finite import FiniteDomain
from framework.worlds.free_text import grounds_of
from framework.worlds.wordings import Bank, bank_of, load_bank, pick

_WORDINGS = Path(__file__).parent / "wordings"
_T = len(CHECKS)
_SPARE_STEPS = 2  # beyond the longest call, for slips

_DONE = {
    "clear_buffer": "buffer cleared",
    "raise_timeout": "time-out raised",
    "free_disk": "disk space freed",
    "redo_connection": "connection set up anew",
    "add_memory": "printer memory added",
    "reset_settings": "print settings reset",
    "reinstall_driver": "driver reinstalled",
    "reinstall_program": "program and document replaced",
}


class HelpDeskWorld(TextWorld):
    """`customer_service/HelpDesk-v0`: one call. All of its chance is drawn at reset."""

    def __init__(self, desk: Desk, bank: Bank, utterances: int) -> None:
        longest = max(len(card.checks) + len(card.repairs) for card in desk.cards) + 1
        super().__init__(ACTS, max_steps=longest + _SPARE_STEPS)
        self.desk, self.bank, self.utterances = desk, bank, utterances
        self._shares = desk.shares.cumsum()
        self._flat = [table.reshape(-1).cumsum() for table in desk.tables]
        self.profile = self.cause = 0
        self.truth: dict[str, int] = {}  # what each check on the card would show
        self.results, self.tried = [-1] * _T, [0] * len(REPAIRS)
        self._chance: Floats = np.zeros(_T)

    def begin(self, rng: np.random.Generator, options: Mapping[str, Any]) -> list[str]:
        """Draws the caller, the cause, all that could be seen, and the words."""
        self.profile = _draw(self._shares, rng)
        drawn = np.unravel_index(_draw(self._flat[self.profile], rng), self.desk.tables[self.profile].shape)
        self.cause = int(drawn[0])
        self.truth = {check: int(result) for check, result in zip(self.desk.cards[self.profile].checks, drawn[1:], strict=True)}
        self.results, self.tried = [-1] * _T, [0] * len(REPAIRS)
        self._chance = rng.random(_T)
        complaint, connection = PROFILES[self.profile]
        said = [*self._say("complaint", complaint, rng.random()), *self._say("connection", connection, rng.random())]
        return [*said, "already ruled out by the caller: power, paper, switched offline"]

    def action_mask(self) -> Bools:
        """See `Desk.allowed`."""
        return self.desk.allowed(self.information_state())

    def information_state(self) -> tuple[int, ...]:
        """See `Desk`."""
        return (self.profile, *self.results, *self.tried)

    def act(self, action: int) -> Transition:
        """Asks, mends or sends."""
        minutes, name = -float(self.desk.minutes[action]), ACTS[action]
        if name == DISPATCH:
            self.lines.append("a technician is on the way")
            costs = {"needless_visit": float(self.cause != ELSEWHERE)}
            return Transition({"visit": minutes}, costs, terminated=True, proxy=-self.desk.numbers.booking_minutes)
        costs = dict(self.desk.wipe(self.information_state(), action))
        if action < _T:
            check, values = list(CHECKS)[action], list(CHECKS.values())[action][1]
            self.results[action] = self.truth[check]
            self.lines += self._say(check, values[self.truth[check]], float(self._chance[action]))
            return Transition({"call": minutes}, costs, proxy=minutes)
        mended = self.cause == action - _T
        self.tried[action - _T] = int(not mended)
        self.lines.append(f"tried: {_DONE[name]}, {'and it prints as it should' if mended else 'no change'}")
        return Transition({"call": minutes}, costs, terminated=mended, proxy=minutes)

    def abandoned(self) -> float:
        """A visit: whoever hangs up has to come in the end."""
        return -float(self.desk.minutes[ACTS.index(DISPATCH)])

    def grounds(self) -> Grounds:
        """What the caller told, and what was tried in vain."""
        heard = dict(zip(("complaint", "connection"), PROFILES[self.profile], strict=True))
        heard |= {check: values[result] for (check, (_, values)), result in zip(CHECKS.items(), self.results, strict=True) if result >= 0}
        heard |= {repair: "in_vain" for repair, tried in zip(REPAIRS, self.tried, strict=True) if tried}
        return grounds_of(load_bank(_WORDINGS / "facts.yaml"), heard)

    def get_world(self) -> dict[str, Any]:
        """See `TextWorld`."""
        hidden = {"profile": self.profile, "cause": self.cause, "truth": dict(self.truth), "chance": self._chance.tolist()}
        return {**hidden, "results": list(self.results), "tried": list(self.tried)}

    def set_world(self, state: Mapping[str, Any]) -> None:
        """See `TextWorld`."""
        self.profile, self.cause = int(state["profile"]), int(state["cause"])
        self.truth, self._chance = dict(state["truth"]), np.array(state["chance"])
        self.results, self.tried = list(state["results"]), list(state["tried"])

    def _say(self, topic: str, value: str, chance: float) -> list[str]:
        """The same thing in a few of the caller's ways."""
        wordings, _ = pick(self.bank[topic][value], self.utterances, chance)
        return [f"{topic.replace('_', ' ')}: {wording}" for wording in wordings]


def _draw(cumulative: Floats, rng: np.random.Generator) -> int:
    return int(min(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"), len(cumulative) - 1))


class HelpDesk(FiniteDomain):
    """A second line for printers: ask, try repairs, or send a technician.

    Args:
        numbers: what the desk assumes.
        utterances: ways in which a caller puts one thing.
        shift_complaints: in the split `shift`, the shares of complaints.
        shift_driver_odds: in the split `shift`, a new driver is rolled out: the factor on the odds of a driver fault.
        cost_limits: violations an episode that are tolerated, by cost.
    """

    name = "customer_service"
    environment = "HelpDesk"
    phrases = _WORDINGS / "acts.yaml"
    proxy = "handle time: minutes on the telephone, where sending a technician is a short call whatever the visit takes"

    def __init__(
        self,
        numbers: Numbers,
        utterances: Count,
        shift_complaints: dict[str, Fraction],
        shift_driver_odds: Positive,
        cost_limits: dict[str, NonNegative],
    ) -> None:
        super().__init__()
        self.numbers, self.utterances, self.cost_limits = numbers, utterances, cost_limits
        self.shifted = replace(numbers, complaints=shift_complaints, driver_odds=shift_driver_odds)

    def model(self, shifted: bool) -> Desk:
        """See `FiniteDomain`."""
        return Desk(self.shifted if shifted else self.numbers)

    def make(self, split: str) -> HelpDeskWorld:
        """See `Domain`."""
        desk = self.model_of(split)
        assert isinstance(desk, Desk)
        return HelpDeskWorld(desk, bank_of(_WORDINGS, split, self.rehearsal), self.utterances)
