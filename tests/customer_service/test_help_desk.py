"""The help desk: its numbers against the network and by hand, the classic order by brute force, its costs, proxy and words."""

from __future__ import annotations

import importlib.util
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from domains.customer_service.help_desk import HelpDesk, model
from domains.customer_service.help_desk.model import ACTS, CHECKS, COMPLAINTS, DISPATCH, ELSEWHERE, PROFILES, REPAIRS, Desk, causes_and_results, network
from framework.config import build_domain, load_domain
from framework.errors import ConfigError, MissingExtraError
from framework.oracles.finite import State
from framework.types import Bools
from framework.worlds.environments import CHARSET
from framework.worlds.finite import FiniteOracle
from framework.worlds.wordings import lexicon_overlap, load_bank

WORDINGS = Path(model.__file__).parent / "wordings"
TRAIN, TEST, FACTS = (load_bank(WORDINGS / f"{name}.yaml") for name in ("train", "test", "facts"))
CONF = Path(model.__file__).parents[3] / "conf/domain/customer_service.yaml"


class Unasking(Desk):
    """The desk of one who may not ask."""

    def allowed(self, state: State) -> Bools:
        return np.where(np.arange(len(ACTS)) < len(CHECKS), False, super().allowed(state))


@pytest.fixture(scope="module")
def desk() -> HelpDesk:
    return load_domain("customer_service", "HelpDesk")


def share(complaint: str, repair: str) -> float:
    """P(the repair's cause | complaint), local printer."""
    table = causes_and_results(complaint, "local")
    return float(table[list(REPAIRS).index(repair)].sum())


def test_network_is_the_published_one() -> None:
    """What the network says of a silent printer before anybody has looked: figures computed independently."""
    net = network()
    silent = float(net.joint(["Problem1"])[1])
    assert silent == pytest.approx(0.43, abs=0.01)
    for root, posterior in {"PTROFFLINE": 0.34, "FllCrrptdBffr": 0.28, "PrtOn": 0.18, "PrtDriver": 0.17}.items():
        assert net.joint([root], {"Problem1": "No_Output"})[1] / silent == pytest.approx(posterior, abs=0.01)


def test_causes_by_hand() -> None:
    """Distorted pictures: graphics settings fail with 0.9, memory with 0.75, anything else leaves 0.001; odds of a fault p / (1 - p)."""
    five, two = 0.05 / 0.95, 0.02 / 0.98
    settings = five * 0.9 + (five + two) * 0.001
    assert share("pictures", "add_memory") / share("pictures", "reset_settings") == pytest.approx(five * 0.75 / settings, rel=1e-3)
    memory = causes_and_results("cut_off", "network")[list(REPAIRS).index("add_memory")]
    shown = COMPLAINTS["cut_off"][2].checks.index("memory_message")
    assert memory.take(1, axis=shown).sum() / memory.sum() == pytest.approx(0.8)


@pytest.mark.parametrize("profile", PROFILES)
def test_tables_are_distributions(profile: tuple[str, str]) -> None:
    table, card = causes_and_results(*profile), COMPLAINTS[profile[0]][2]
    assert table.shape == (len(REPAIRS) + 1, *(2 for _ in card.checks)) and table.min() >= 0 and table.sum() == pytest.approx(1)
    listed = [repair in card.repairs for repair in REPAIRS] + [True]
    assert ((table.reshape(len(table), -1).sum(axis=1) > 0) == listed).all()


def test_a_check_splits_what_was_known(desk: HelpDesk) -> None:
    """The causes' probabilities under all results of a check add up to those before it."""
    numbers = Desk(desk.numbers)
    for _, state in numbers.openings():
        for act in np.flatnonzero(numbers.allowed(state)[: len(CHECKS)]):
            after = [outcome.state for outcome in numbers.outcomes(state, int(act)) if outcome.state]
            np.testing.assert_allclose(sum(numbers.causes(other) for other in after), numbers.causes(state))


@pytest.mark.slow
def test_classic_order_is_best_where_nothing_may_be_asked(desk: HelpDesk) -> None:
    oracle = FiniteOracle(Unasking(desk.numbers), {})
    assert oracle.references["heuristic"].value == pytest.approx(oracle.references["optimum"].value)
    assert oracle.references["heuristic"].value == pytest.approx(desk.oracle("train").references["heuristic"].value)


@pytest.mark.parametrize("complaint", ["no_output", "garbled"])
def test_classic_order_against_every_order(desk: HelpDesk, complaint: str) -> None:
    """All orders of all choices of repairs, then a technician: none is quicker than the classic."""
    numbers = Unasking(replace(desk.numbers, complaints={name: float(name == complaint) for name in COMPLAINTS}, network_share=0.0))
    ((_, start),) = numbers.openings()
    causes, quickest = numbers.causes(start), np.inf
    repairs = np.flatnonzero(numbers.allowed(start)[len(CHECKS) : -1])
    for length in range(len(repairs) + 1):
        for order in itertools.permutations(repairs, length):
            left, minutes = 1.0, 0.0
            for repair in order:
                minutes += left * numbers.minutes[len(CHECKS) + repair]
                left -= causes[repair]
            quickest = min(quickest, minutes + left * numbers.minutes[-1])
    assert FiniteOracle(numbers, {}).references["heuristic"].value == pytest.approx(-quickest)


@pytest.mark.slow
def test_questions_are_worth_it_even_to_who_reads_the_complaint(desk: HelpDesk) -> None:
    """Against the classic order, which reads the complaint, and not just against a script that is deaf to it."""
    value = {name: reference.value for name, reference in desk.oracle("train").references.items()}
    assert (value["optimum"] - value["heuristic"]) / (value["informed"] - value["heuristic"]) >= 0.3


def test_costs_and_proxy(desk: HelpDesk) -> None:
    world = desk.make("train")
    wipe, look, send = (ACTS.index(name) for name in ("reinstall_driver", "check_memory_message", DISPATCH))
    for looked in (False, True):
        for seed in range(40):
            world.reset(seed=seed)
            if looked:
                assert world.step(look)[4]["proxy"] == -desk.numbers.minutes["check_memory_message"]
            _, reward, ended, _, info = world.step(wipe)
            assert info["costs"] == {"needless_wipe": float(not looked)} and reward == info["proxy"] == -desk.numbers.minutes["reinstall_driver"]
            assert ended == (world.cause == list(REPAIRS).index("reinstall_driver"))
            if not ended:
                _, reward, ended, _, info = world.step(send)
                assert ended and info["costs"] == {"needless_visit": float(world.cause != ELSEWHERE)}
                assert (reward, info["proxy"]) == (-desk.numbers.minutes[DISPATCH], -desk.numbers.booking_minutes)


@pytest.mark.slow
def test_handle_time_is_shortest_where_everybody_gets_a_visit(desk: HelpDesk) -> None:
    worth = desk.oracle("train").references
    assert worth["proxy_optimum"].value == pytest.approx(-desk.numbers.minutes[DISPATCH])
    assert worth["optimum"].costs["needless_visit"] > desk.cost_limits["needless_visit"]
    assert worth["heuristic"].costs["needless_wipe"] > desk.cost_limits["needless_wipe"]


def test_roll_out_brings_driver_faults(desk: HelpDesk) -> None:
    driver = list(REPAIRS).index("reinstall_driver")
    before, after = (Desk(numbers).tables[0][driver].sum() for numbers in (desk.numbers, desk.shifted))
    assert after / (1 - after) == pytest.approx(desk.shifted.driver_odds * before / (1 - before))


def test_one_seed_is_one_call_whoever_answers(desk: HelpDesk) -> None:
    """What a check shows hangs on the call, not on what was done before."""
    one, other = ACTS.index("check_memory_message"), ACTS.index("check_icon")
    told = []
    for order in ([one, other], [other, one]):
        world = desk.make("train")
        world.reset(seed=5)
        for act in order:
            world.step(act)
        told.append((world.information_state(), sorted(world.lines)))
    assert told[0] == told[1]


def test_wordings() -> None:
    topics = {"complaint": tuple(COMPLAINTS), "connection": model.CONNECTIONS, **{check: values for check, (_, values) in CHECKS.items()}}
    assert lexicon_overlap(TRAIN, TEST) == {}
    for bank, least in ((TRAIN, 80), (TEST, 12)):
        assert {topic: tuple(values) for topic, values in bank.items()} == topics
        for values in bank.values():
            utterances = [utterance for many in values.values() for utterance in many]
            assert len(utterances) == len({utterance.lower() for utterance in utterances})
            assert all(len(many) >= least for many in values.values()) and all(set(utterance) <= set(CHARSET) for utterance in utterances)
    assert {topic: tuple(values) for topic, values in FACTS.items()} == topics | dict.fromkeys(REPAIRS, ("in_vain",))


def test_wrong_settings_are_named() -> None:
    node = OmegaConf.load(CONF)
    node.environment = "HelpDesk"
    node.worlds.HelpDesk.numbers.minutes.check_icon = 0
    with pytest.raises(ConfigError, match="minutes.check_icon"):
        build_domain(node)
    del node.worlds.HelpDesk.numbers.minutes["check_icon"]
    with pytest.raises(ConfigError, match="differs in check_icon"):
        build_domain(node)
    node = OmegaConf.load(CONF)
    node.environment = "HelpDesk"
    node.worlds.HelpDesk.shift_complaints.slow = 0.9
    with pytest.raises(ConfigError, match="sum to 1"):
        build_domain(node)


def test_missing_data_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="customer-service"):
        network()
