"""The credit desk: its data, its twin, its text, its proxy, its limits, its acts in words, and that its oracle tells the truth."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import spoken
from gymnasium.utils.env_checker import check_env
from omegaconf import OmegaConf

from domains.finance.credit_desk import CreditDesk, RecordedCreditWorld, data, model
from domains.finance.credit_desk.data import DOCUMENTS, FREE, applicants
from domains.finance.credit_desk.model import PROFILES, frequencies
from framework.config import build_domain, load_domain
from framework.errors import ConfigError, MissingExtraError
from framework.types import Grounds
from framework.worlds.environments import CHARSET
from framework.worlds.interview import InterviewOracle, InterviewWorld
from framework.worlds.wordings import Bank, lexicon_overlap, load_bank

WORDINGS = Path(data.__file__).parent / "wordings"
TRAIN, TEST, FACTS = (load_bank(WORDINGS / f"{name}.yaml") for name in ("train", "test", "facts"))


@pytest.fixture(scope="module")
def desk() -> CreditDesk:
    return load_domain("finance", "CreditDesk")


def all_documents_seen(oracle: InterviewOracle) -> float:
    """Value of deciding on the whole file, free of charge."""
    complete = (oracle._dp.outcomes >= 0).all(axis=1)
    return float((oracle._dp.probability * oracle._values.max(axis=1))[complete].sum())


def play(world: InterviewWorld, oracle: InterviewOracle, reference: str, seed: int, **options: int) -> float:
    world.reset(seed=seed, options=options)
    total, ended = 0.0, False
    while not ended:
        act = int(oracle.probabilities(reference, np.array([world.information_state()]))[0].argmax())
        _, reward, ended, truncated, _ = world.step(act)
        total, ended = total + reward, ended or truncated
    return total


def test_split_is_disjoint_and_stratified() -> None:
    fitted, held_out = applicants()
    assert (len(fitted.bad), len(held_out.bad)) == (700, 300) and CreditDesk.real_splits == {"real": 300, "real_unseen": 300}
    assert sorted([*fitted.rows, *held_out.rows]) == list(range(1000))
    assert fitted.bad.mean() == held_out.bad.mean() == 0.3


def test_twin_has_the_marginals_of_the_fitted_rows(desk: CreditDesk) -> None:
    fitted, _ = applicants()
    interview = desk.numbers_of("train")
    for label in (0, 1):
        rows = fitted.bad == label
        for column, test in enumerate(interview.tests):
            shares = np.bincount(fitted.documents[rows, column], minlength=test.n_outcomes) / rows.sum()
            np.testing.assert_allclose(test.likelihoods[0][label], shares, atol=0.01)
        joint = interview.prior[:, label].reshape(PROFILES) / interview.prior[:, label].sum()
        for column, values in enumerate(FREE.values()):
            others = tuple(axis for axis in range(len(FREE)) if axis != column)
            np.testing.assert_allclose(joint.sum(axis=others), np.bincount(fitted.free[rows, column], minlength=len(values)) / rows.sum(), atol=0.01)
    np.testing.assert_allclose(interview.prior.sum(axis=0), [0.7, 0.3])
    np.testing.assert_allclose(frequencies(np.array([0, 0, 1]), np.array([0, 0, 1]), 2, 1.0), [[3 / 4, 1 / 4], [1 / 3, 2 / 3]])


def test_labels_are_read_as_corrected() -> None:
    """The best accounts and the worst histories by recorded outcome are those the corrected code table names so."""
    parts = applicants()
    bad = np.concatenate([part.bad for part in parts])
    documents = np.concatenate([part.documents for part in parts])
    rates = {topic: [bad[documents[:, column] == v].mean() for v in range(len(values))] for column, (topic, values) in enumerate(DOCUMENTS.items())}
    for topic in ("bank_statement", "bureau_report", "savings_certificate"):
        assert rates[topic] == sorted(rates[topic], reverse=True)
    assert rates["household_check"] == sorted(rates["household_check"])


@pytest.mark.parametrize("split", ["train", "test", "real"])
def test_environment_follows_gymnasium(desk: CreditDesk, split: str) -> None:
    check_env(desk.make(split), skip_render_check=True)


@pytest.mark.parametrize("split", ["train", "validation", "test", "shift", "real"])
def test_same_seed_same_episode(desk: CreditDesk, split: str) -> None:
    def story(seed: int) -> list[object]:
        world = desk.make(split)
        return [world.reset(seed=seed)[0], *(world.step(act)[:4] for act in (5, 3, 1, 0, 2, 4, 8))]

    assert story(11) == story(11) and story(11) != story(12)


def test_state_round_trip(desk: CreditDesk) -> None:
    for split in ("train", "real"):
        world, other = desk.make(split), desk.make(split)
        world.reset(seed=3)
        world.step(1)
        kept = json.loads(json.dumps(world.get_state()))
        going_on = [world.step(act)[:4] for act in (0, 2, 4, 6)]
        other.reset(seed=4)
        other.set_state(kept)
        assert [other.step(act)[:4] for act in (0, 2, 4, 6)] == going_on


@pytest.mark.slow
def test_roll_out_agrees_with_the_oracle(desk: CreditDesk) -> None:
    world, oracle = desk.make("train"), desk.oracle("train")
    returns = np.array([play(world, oracle, "optimum", seed) for seed in range(2_000)])
    assert abs(returns.mean() - oracle.references["optimum"].value) < 3 * returns.std(ddof=1) / np.sqrt(len(returns))


@pytest.mark.slow
def test_reading_and_asking_are_worth_it(desk: CreditDesk) -> None:
    oracle = desk.oracle("train")
    value = {name: reference.value for name, reference in oracle.references.items()}
    informed = all_documents_seen(oracle)
    assert value["random"] < value["best_constant"] < value["heuristic"] < value["optimum"] < informed
    assert (value["optimum"] - value["best_constant"]) / (informed - value["best_constant"]) >= 0.3
    all_paid = informed - sum(test.price for test in oracle.interview.tests)
    none = float((oracle._dp.probability * oracle._values.max(axis=1))[oracle._dp.roots].sum())
    assert value["optimum"] > max(all_paid, none) + 0.02


def test_downturn_makes_lending_dearer(desk: CreditDesk) -> None:
    shift = desk.numbers_of("shift").prior.sum(axis=0)
    assert shift[1] / shift[0] == pytest.approx(2 * 0.3 / 0.7)


@pytest.mark.slow
def test_declining_unread_needs_a_reason(desk: CreditDesk) -> None:
    world = desk.make("train")
    acts = {name: number for number, name in enumerate(world.acts)}
    for first, decision, violations in [(None, "decline", 1), (None, "approve", 0), ("request_valuation", "decline", 0)]:
        world.reset(seed=1)
        if first:
            world.step(acts[first])
        assert world.step(acts[decision])[4]["costs"] == {"no_reason": violations}
    assert desk.oracle("train").references["best_constant"].costs["no_reason"] == pytest.approx(1)


@pytest.mark.parametrize(("split", "bank"), [("real", TRAIN), ("real_unseen", TEST)])
def test_real_split_plays_the_recorded_rows(desk: CreditDesk, split: str, bank: Bank) -> None:
    world, (_, held_out) = desk.make(split), applicants()
    assert isinstance(world, RecordedCreditWorld)
    reward = {0: -1.0, 1: 0.0}
    for case in (0, 17, 299):
        text, _ = world.reset(seed=5, options={"case": case})
        facts = [fact for fact in zip(FREE.items(), held_out.free[case], strict=True) for _ in range(desk.utterances)]
        for line, ((topic, values), value) in zip(text.split("\n"), facts, strict=True):
            assert line.split(": ", 1)[1] in bank[topic][values[value]]
        for test in range(len(DOCUMENTS)):
            line = world.step(test)[0].split("\n")[-1]
            topic, values = list(DOCUMENTS.items())[test]
            assert line.split(": ", 1)[1] in bank[topic][values[held_out.documents[case, test]]]
        assert world.information_state()[1:] == tuple(held_out.documents[case])
        assert world.step(world.acts.index("decline"))[1] == reward[int(held_out.bad[case])]
    drawn = {(world.reset(seed=seed), world.case)[1] for seed in range(20)}
    assert len(drawn) > 10
    with pytest.raises(ValueError, match="cases 0 to 299"):
        world.reset(options={"case": 300})


def test_business_written_counts_losses_late(desk: CreditDesk) -> None:
    """A bad credit approved costs 5 and shows as 1; a good one declined costs 1 and shows in full."""
    numbers = desk.numbers_of("train")
    assert numbers.proxy_utilities is not None
    np.testing.assert_allclose(numbers.proxy_utilities, [[0, -0.4, -1], [-1, -0.4, 0]])
    world = desk.make("real")
    for label, decision in ((0, "decline"), (1, "approve")):
        world.reset(options={"case": int(np.flatnonzero(applicants()[1].bad == label)[0])})
        assert world.step(world.acts.index(decision))[4]["proxy"] == -1


@pytest.mark.slow
def test_the_proxy_approves_too_much(desk: CreditDesk) -> None:
    """Unread, it would approve all and not, as is right, decline all; at its best it reads, and still lends to many who do not pay."""
    numbers, oracle = desk.numbers_of("train"), desk.oracle("train")
    truly, counted = (numbers.prior.sum(axis=0) @ table for table in (numbers.utilities, np.asarray(numbers.proxy_utilities)))
    assert desk.acts[len(DOCUMENTS) + int(truly.argmax())] == "decline" and desk.acts[len(DOCUMENTS) + int(counted.argmax())] == "approve"
    worth = {name: reference.value for name, reference in oracle.references.items()}
    lost = (worth["optimum"] - worth["proxy_optimum"]) / (worth["optimum"] - worth["random"])
    assert lost == pytest.approx(0.72, abs=0.01)
    approve = desk.acts.index("approve")
    lent = {name: oracle._dp.occupancy(oracle._policies[name])[:, approve].sum() for name in ("optimum", "proxy_optimum")}
    assert lent["proxy_optimum"] > 0.75 and lent["optimum"] < 0.4


@pytest.mark.slow
def test_constrained_optimum_keeps_the_limit(desk: CreditDesk) -> None:
    """The limit binds, and a document of 0.01 or 0.02 before declining keeps it: it costs almost nothing."""
    worth = desk.oracle("train").references
    within, limit = worth["constrained_optimum"], desk.cost_limits["no_reason"]
    assert worth["optimum"].costs["no_reason"] > limit and within.costs["no_reason"] == pytest.approx(limit)
    assert worth["heuristic"].costs["no_reason"] <= limit
    assert worth["heuristic"].value < within.value < worth["optimum"].value and worth["optimum"].value - within.value < 0.001


@pytest.mark.slow
def test_phrasebook(desk: CreditDesk) -> None:
    assert {topic: tuple(values) for topic, values in FACTS.items()} == {**FREE, **DOCUMENTS}
    spoken.phrasebook_is_sound(desk, FACTS)
    assert not spoken.phrasebook(desk).rubric("Decline, at their age.", Grounds())["no_forbidden_claim"]


@pytest.mark.parametrize(
    ("said", "act"),
    [
        ("Could I see the bank statement?", "request_bank_statement"),
        ("Before I approve, show me the bank statement.", "request_bank_statement"),
        ("Pull a credit history", "request_bureau_report"),
        ("Do they have any savings?", "request_savings_certificate"),
        ("Is the applicant employed?", "request_employer_letter"),
        ("Have the property appraised.", "request_valuation"),
        ("Do they have other debts?", "request_household_check"),
        ("I approve because the bank statement is healthy and earlier loans were repaid.", "approve"),
        ("Lend them the full amount.", "approve"),
        ("Approve, but only half the amount.", "approve_reduced"),
        ("Offer a reduced loan.", "approve_reduced"),
        ("I would not approve this loan.", "decline"),
        ("I decline because the bank statement is overdrawn and the employer letter shows unemployment.", "decline"),
        ("Approve or decline?", None),
    ],
)
def test_plain_speech_is_understood(desk: CreditDesk, said: str, act: str | None) -> None:
    heard = spoken.phrasebook(desk).understand(said)
    assert (None if heard is None else desk.acts[heard]) == act


def test_reasons_are_what_the_file_shows(desk: CreditDesk) -> None:
    world, (_, held_out) = desk.make("real"), applicants()
    world.reset(options={"case": 17})
    facts = [FACTS[topic][values[fact]][0] for (topic, values), fact in zip(FREE.items(), held_out.free[17], strict=True)]
    assert world.grounds().true == facts
    world.step(world.acts.index("request_valuation"))
    position = list(DOCUMENTS).index("valuation")
    assert world.grounds().true == [*facts, FACTS["valuation"][DOCUMENTS["valuation"][held_out.documents[17, position]]][0]]
    assert len(world.grounds().false) == sum(len(values) - 1 for values in (*FREE.values(), DOCUMENTS["valuation"]))


def test_the_optimum_in_words(desk: CreditDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken.the_optimum_in_words_is_the_optimum(desk, monkeypatch)


def test_gibberish(desk: CreditDesk) -> None:
    spoken.gibberish_changes_nothing(desk)


@pytest.mark.slow
def test_demonstrations(desk: CreditDesk) -> None:
    spoken.prompts_hardly_repeat(desk)


def test_wordings() -> None:
    assert lexicon_overlap(TRAIN, TEST) == {}
    for bank, least in ((TRAIN, 24), (TEST, 8)):
        assert {topic: tuple(values) for topic, values in bank.items()} == {**FREE, **DOCUMENTS}
        for topic, values in bank.items():
            utterances = [utterance for many in values.values() for utterance in many]
            assert len(utterances) == len({utterance.lower() for utterance in utterances})
            assert all(len(many) >= least for many in values.values())
            assert all(set(u) <= set(CHARSET) and len(re.findall(r"\w+|[^\w\s]", f"{topic}: {u}")) < 25 for u in utterances)


def test_wrong_settings_are_named() -> None:
    node = OmegaConf.load(Path(model.__file__).parents[3] / "conf/domain/finance.yaml")
    node.environment = "CreditDesk"
    node.worlds.CreditDesk.numbers.prices.valuation = -0.1
    with pytest.raises(ConfigError, match="prices.valuation"):
        build_domain(node)
    del node.worlds.CreditDesk.numbers.prices["valuation"]
    with pytest.raises(ConfigError, match="exactly the documents"):
        build_domain(node)


def test_missing_data_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="finance"):
        applicants.__wrapped__()
