"""The numbers of the help desk: what may ail a printer, what its user would see, how long everything takes.

Causes and what is seen of them come from WIN95PTS, Microsoft's network of printing under Windows 95. Its tables were filled for one
fault at a time: most entries where two faults meet are 0.5. So the desk takes it at one fault, whichever of them all it is:

    P(cause k, complaint, results) = P(the faults of k, one at a time, every other part sound, complaint, results).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from framework.config import Fraction, Positive
from framework.data_packages import package_file
from framework.oracles.finite import DecisionModel, Outcome, State
from framework.types import Bools, Floats
from framework.worlds.bayes_net import BayesNet, read_bif

CONNECTIONS = ("local", "network")

# What the caller can be asked to look at: the network's variable, and what its first and its second state look like.
CHECKS = {
    "memory_message": ("PrtStatMem", ("absent", "shown")),
    "data_light": ("PC2PRT", ("blinks", "dark")),
    "icon": ("PrtIcon", ("normal", "greyed")),
    "picture": ("Problem4", ("spoilt", "fine")),
    "other_program": ("AppData", ("fails", "works")),
}

# What the caller can be talked through, and the faults that it mends.
REPAIRS = {
    "clear_buffer": ("FllCrrptdBffr",),
    "raise_timeout": ("PrtTimeOut",),
    "free_disk": ("DskLocal",),
    "redo_connection": ("PrtCbl", "PrtPort", "CblPrtHrdwrOK", "PrtPath", "NtwrkCnfg"),
    "add_memory": ("PrtMem",),
    "reset_settings": ("PgOrnttnOK", "PrntngArOK", "GrphcsRltdDrvrSttngs"),
    "reinstall_driver": ("PrtDriver", "DrvSet", "DrvOK"),
    "reinstall_program": ("AppOK", "DataFile"),
}
DISPATCH = "dispatch_technician"
WIPES = ("reinstall_driver", "reinstall_program")
ACTS = (*(f"check_{name}" for name in CHECKS), *REPAIRS, DISPATCH)
_T, _R = len(CHECKS), len(REPAIRS)
ELSEWHERE = _R
"""Number of the cause that no repair mends, after those that the repairs do."""

# Circumstances, no faults; the desk serves Windows programs. A second line's caller has ruled out power, paper and the online switch.
_CIRCUMSTANCES = ("NetPrint", "DSApplctn", "PrtMpTPth", "PrtPScript", "TrTypFnts")
_RULED_OUT = ("PrtOn", "PrtPaper", "PTROFFLINE")


@dataclass(frozen=True)
class Card:
    """What the desk's card for a complaint lets one ask and try."""

    checks: tuple[str, ...]
    repairs: tuple[str, ...]


_NOTHING_PRINTS = Card(
    ("memory_message", "data_light", "icon"),
    ("clear_buffer", "raise_timeout", "free_disk", "redo_connection", "add_memory", "reinstall_driver"),
)
_PRINTS_BADLY = Card(
    ("memory_message", "icon", "picture", "other_program"),
    ("redo_connection", "add_memory", "reset_settings", "reinstall_driver", "reinstall_program"),
)

# The network's variable, its state that is the complaint ("No" means trouble to Problem3 and Problem4, as their tables show), the card.
COMPLAINTS = {
    "no_output": ("Problem1", "No_Output", _NOTHING_PRINTS),
    "garbled": ("Problem6", "Yes", _PRINTS_BADLY),
    "slow": ("Problem2", "Too_Long", _PRINTS_BADLY),
    "cut_off": ("Problem3", "No", _PRINTS_BADLY),
    "pictures": ("Problem4", "No", Card(("memory_message", "icon", "other_program"), _PRINTS_BADLY.repairs)),
}
PROFILES = tuple(itertools.product(COMPLAINTS, CONNECTIONS))


@dataclass(frozen=True)
class Numbers:
    """What the desk assumes; `conf/domain/customer_service.yaml` holds the values."""

    minutes: dict[str, Positive]  # of each act
    booking_minutes: Positive  # on the telephone, to send a technician: all that handle time sees of a visit
    complaints: dict[str, Fraction]  # shares
    network_share: Fraction  # printers on the network
    driver_odds: Positive = 1.0  # factor on the odds of a driver fault

    def __post_init__(self) -> None:
        for name, given, wanted in (("minutes", self.minutes, ACTS), ("complaints", self.complaints, COMPLAINTS)):
            if differing := set(given) ^ set(wanted):
                raise ValueError(f"{name} needs exactly {', '.join(wanted)}; differs in {', '.join(sorted(differing))}")
        if not np.isclose(sum(self.complaints.values()), 1):
            raise ValueError(f"complaints must sum to 1, not {sum(self.complaints.values()):g}")


def network() -> BayesNet:
    """WIN95PTS, as the package `pgmpy` carries it."""
    return read_bif(package_file("pgmpy", "utils/example_models/win95pts.bif.gz", extra="customer-service"))


@cache
def causes_and_results(complaint: str, connection: str) -> Floats:
    """P(cause, result of each check on the card | complaint, connection), `[R + 1, 2, ..., 2]`."""
    net = network()
    variable, state, card = COMPLAINTS[complaint]
    faults = [name for name, node in net.nodes.items() if not node.parents and name not in _CIRCUMSTANCES]
    sound = {name: net.nodes[name].states[0] for name in faults}
    linked = net.nodes["NetPrint"].states[CONNECTIONS.index(connection)]
    given = {**sound, "NetPrint": linked, "DSApplctn": "Windows", variable: state}
    seen = [CHECKS[check][0] for check in card.checks]
    table = np.zeros((_R + 1, *(2 for _ in seen)))
    table[ELSEWHERE] = net.joint(seen, given)  # a sound printer may still print badly
    mended = {fault: cause for cause, (repair, mends) in enumerate(REPAIRS.items()) if repair in card.repairs for fault in mends}
    for fault in faults:
        if fault not in _RULED_OUT:
            table[mended.get(fault, ELSEWHERE)] += net.joint(seen, {**given, fault: net.nodes[fault].states[1]})
    return np.asarray(table / table.sum())


class Desk(DecisionModel):
    """The desk over what can be known of a call.

    An information state is the profile (complaint and connection), the result of each check (-1: not made) and which repairs were
    tried in vain. The unit of reward is a minute of the caller's time, negative.
    """

    def __init__(self, numbers: Numbers) -> None:
        self.acts, self.numbers = ACTS, numbers
        self.minutes = np.array([numbers.minutes[act] for act in ACTS])
        linked = dict(zip(CONNECTIONS, (1 - numbers.network_share, numbers.network_share), strict=True))
        self.shares = np.array([numbers.complaints[complaint] * linked[connection] for complaint, connection in PROFILES])
        self.tables = [self._table(*profile) for profile in PROFILES]
        self.cards = [COMPLAINTS[complaint][2] for complaint, _ in PROFILES]
        self._causes: dict[State, Floats] = {}

    def _table(self, complaint: str, connection: str) -> Floats:
        table = causes_and_results(complaint, connection).copy()
        table[list(REPAIRS).index("reinstall_driver")] *= self.numbers.driver_odds
        return np.asarray(table / table.sum())

    def openings(self) -> Iterator[tuple[float, State]]:
        """See `DecisionModel`."""
        for profile, share in enumerate(self.shares):
            if share > 0:
                yield float(share), (profile, *(-1 for _ in CHECKS), *(0 for _ in REPAIRS))

    def allowed(self, state: State) -> Bools:
        """What the card lists and was not done yet; a technician always."""
        card, results, tried = self.cards[state[0]], state[1 : 1 + _T], state[1 + _T :]
        checks = [name in card.checks and result < 0 for name, result in zip(CHECKS, results, strict=True)]
        return np.array(checks + [name in card.repairs and not done for name, done in zip(REPAIRS, tried, strict=True)] + [True])

    def causes(self, state: State) -> Floats:
        """P(cause, what was seen and tried | profile), `[R + 1]`."""
        if state not in self._causes:
            results, tried = dict(zip(CHECKS, state[1:], strict=False)), state[1 + _T :]
            seen = [results[check] for check in self.cards[state[0]].checks]
            table = self.tables[state[0]][:, *(slice(None) if result < 0 else result for result in seen)]
            self._causes[state] = table.reshape(len(table), -1).sum(axis=1) * np.append(1 - np.array(tried), 1)
        return self._causes[state]

    def outcomes(self, state: State, act: int) -> Iterator[Outcome]:
        """See `DecisionModel`."""
        causes, minutes = self.causes(state), float(self.minutes[act])
        total = float(causes.sum())
        if ACTS[act] == DISPATCH:
            mendable = {"needless_visit": 1 - float(causes[ELSEWHERE]) / total}
            yield Outcome(1.0, None, -minutes, mendable, proxy=-self.numbers.booking_minutes)
            return
        costs = self.wipe(state, act)
        for result in (0, 1) if act < _T else (1,):
            after = (*state[: 1 + act], result, *state[2 + act :])
            probability = float(self.causes(after).sum()) / total
            if probability > 0:
                yield Outcome(probability, after, -minutes, costs, proxy=-minutes)
        if act >= _T and causes[act - _T] > 0:
            yield Outcome(float(causes[act - _T]) / total, None, -minutes, costs, proxy=-minutes)

    def wipe(self, state: State, act: int) -> Mapping[str, float]:
        """The cost `needless_wipe` of an act: 1 for reinstalling before anything was looked at."""
        return {"needless_wipe": float(max(state[1 : 1 + _T]) < 0)} if ACTS[act] in WIPES else {}

    def heuristic(self, state: State) -> int:
        """The classic: no questions; repairs in the order of probability / minutes, as long as that pays, then a technician.

        Where nothing may be asked and there is one fault this is optimal (Kadane & Simon, 1977; Heckerman, Breese & Rommelse, 1995),
        and so is the best stop along that order.
        """
        causes, repairs = self.causes(state), np.flatnonzero(self.allowed(state)[_T:-1])
        order = repairs[np.argsort(-causes[repairs] / self.minutes[_T + repairs], kind="stable")]
        left = causes.sum() - np.append(0.0, causes[order].cumsum())  # P(not mended) after each
        spent = np.append(0.0, (left[:-1] * self.minutes[_T + order]).cumsum())
        best = int((spent + left * self.minutes[-1]).argmin())
        return _T + int(order[0]) if best else len(ACTS) - 1

    def informed(self) -> float:
        """Who knows the cause mends it at once, or sends a technician where that is faster."""
        shortest = np.append(np.minimum(self.minutes[_T:-1], self.minutes[-1]), self.minutes[-1])
        start = [self.causes(state) @ shortest for _, state in self.openings()]
        return -float(self.shares[self.shares > 0] @ start)
