"""The intensive care world: the published process and its figures, the chart against the columns, costs, proxy, words."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from domains.healthcare.icu_sepsis import IcuSepsis, SepsisWorld, data, model
from domains.healthcare.icu_sepsis.data import COLUMNS, LEVELS, STATES, SURVIVED, records
from domains.healthcare.icu_sepsis.model import ACTS, GRADES, READINGS, SepsisModel
from framework.config import load_domain
from framework.errors import MissingExtraError
from framework.types import Floats, Reference
from framework.worlds.free_text import load_phrasebook
from framework.worlds.wordings import lexicon_overlap, load_bank

WORDINGS = Path(data.__file__).parent / "wordings"
TRAIN, TEST, FACTS = (load_bank(WORDINGS / f"{name}.yaml") for name in ("train", "test", "facts"))
EVERY_STATE = np.arange(STATES)[:, None]


@pytest.fixture(scope="module")
def ward() -> IcuSepsis:
    return load_domain("healthcare", "IcuSepsis")


@pytest.fixture(scope="module")
def numbers(ward: IcuSepsis) -> SepsisModel:
    return ward.model_of("train")


@pytest.fixture(scope="module")
def worth(ward: IcuSepsis) -> Mapping[str, Reference]:
    return ward.oracle("train").references


def moves(policy: Floats) -> Floats:
    """State to state under a policy, ends last: `[713, 715]`."""
    return np.asarray(np.einsum("sa,sat->st", policy, records().leads.toarray().reshape(STATES, len(ACTS), -1)))


def column(name: str) -> Floats:
    return np.asarray(records().centres[:, COLUMNS.index(name)])


@pytest.mark.slow
def test_published_figures_are_reproduced(worth: Mapping[str, Reference]) -> None:
    """Choudhary et al. 2024: average return of random acts, of the clinicians and of value iteration."""
    published = {"random": 0.78, "clinicians": 0.78, "optimum": 0.88}
    assert {name: round(worth[name].value, 2) for name in published} == published


@pytest.mark.slow
def test_oracle_agrees_with_linear_equations(ward: IcuSepsis, numbers: SepsisModel, worth: Mapping[str, Reference]) -> None:
    """What a policy earns solves v = P v + P(survive); how long it takes, t = P t + 1."""
    oracle = ward.oracle("train")
    for name, length in {"random": 9.5, "optimum": 11.0, "clinicians": 9.2}.items():
        process = moves(oracle.probabilities(name, EVERY_STATE))
        solve = np.eye(STATES) - process[:, :STATES]
        value, turns = np.linalg.solve(solve, np.stack([process[:, SURVIVED], np.ones(STATES)], axis=1)).T
        assert numbers.starts @ value == pytest.approx(worth[name].value)
        assert numbers.starts @ turns == pytest.approx(length, abs=0.05)


@pytest.mark.slow
def test_hardly_an_episode_is_cut_off(ward: IcuSepsis, numbers: SepsisModel) -> None:
    process = moves(ward.oracle("train").probabilities("optimum", EVERY_STATE))[:, :STATES]
    left = numbers.starts
    for _ in range(ward.max_steps):
        left = left @ process
    assert left.sum() < 1e-5


def test_columns_mean_what_their_names_say() -> None:
    """The package does not name its columns; what must go together does."""
    fluids, pressors = (records().clinicians @ levels for levels in np.divmod(np.arange(len(ACTS)), LEVELS))
    together = {
        ("SOFA", 1.0): records().sofa,
        ("input_4hourly", 0.99): fluids,
        ("max_dose_vaso", 0.7): pressors,
        ("SGOT", 0.97): column("SGPT"),
        ("PT", 0.95): column("INR"),
        ("MeanBP", 0.9): column("SysBP"),
        ("paO2", 0.85): column("PaO2_FiO2"),
        ("BUN", 0.85): column("Creatinine"),
        ("HR", 0.8): column("SIRS"),
        ("RR", 0.75): column("SIRS"),
        ("output_4hourly", 0.8): column("output_total"),
        ("HCO3", 0.75): column("Arterial_BE"),
        ("Sodium", 0.75): column("Chloride"),
        ("GCS", 0.7): -column("mechvent"),
        ("FiO2_1", 0.4): -column("PaO2_FiO2"),
    }
    assert len(COLUMNS) == records().centres.shape[1] == 47
    for (name, least), other in together.items():
        assert np.corrcoef(column(name), other)[0, 1] >= least - 0.005, name


def test_every_state_has_a_chart_of_its_own(numbers: SepsisModel) -> None:
    assert len(np.unique(numbers.grades, axis=0)) == STATES
    for reading, grades in zip(READINGS, numbers.grades.T, strict=True):
        assert np.bincount(grades, minlength=len(GRADES)).min() > STATES / 10, reading.label


@pytest.mark.slow
def test_a_reader_of_scattered_charts_earns_nearly_all(ward: IcuSepsis, numbers: SepsisModel, worth: Mapping[str, Reference]) -> None:
    """Who weighs all states by how likely they make the chart, and takes the act that is best on average."""
    oracle = ward.oracle("train")
    values = oracle.action_values(EVERY_STATE)
    lost = np.where(numbers.records.allowed, values.max(axis=1, keepdims=True) - values, 0.0)
    visits = np.linalg.solve((np.eye(STATES) - moves(oracle.probabilities("optimum", EVERY_STATE))[:, :STATES]).T, numbers.starts)
    posterior = np.log(visits + 1e-9) * np.ones((STATES, 1))  # [charts, states]
    rng = np.random.default_rng(0)
    off, sure = ward.scatter / 2, 1 - ward.scatter
    chances = np.array([[sure + off, off, 0], [off, sure, off], [0, off, sure + off]])  # told grade, by the state's
    for grades in numbers.grades.T:
        told = (rng.random((STATES, 1)) > chances[grades].cumsum(axis=1)).sum(axis=1)
        with np.errstate(divide="ignore"):
            posterior += np.log(chances[grades][:, told].T)
    weights = np.exp(posterior - posterior.max(axis=1, keepdims=True))
    likely = np.where(numbers.records.allowed, weights @ -lost / np.maximum(weights @ numbers.records.allowed, 1e-12), -np.inf)
    given_away = float(visits @ lost[np.arange(STATES), likely.argmax(axis=1)])
    assert given_away < 0.01 * (worth["optimum"].value - worth["random"].value)


@pytest.mark.slow
def test_costs_count_rare_acts_and_the_highest_pressor(ward: IcuSepsis, worth: Mapping[str, Reference]) -> None:
    world = ward.make("train")
    for seed in range(30):
        world.reset(seed=seed)
        for act in np.flatnonzero(world.action_mask()):
            kept, state = world.get_state(), world.patient
            costs = world.step(int(act))[4]["costs"]
            assert costs == {"off_protocol": float(records().clinicians[state, act] < 0.1), "max_pressor": float(ACTS[act].endswith("extreme_pressor"))}
            world.set_state(kept)
    for name, limit in ward.cost_limits.items():
        assert worth["clinicians"].costs[name] <= limit < worth["optimum"].costs[name]
        assert worth["constrained_optimum"].costs[name] <= limit + 1e-9
    assert worth["clinicians"].value < worth["heuristic"].value < worth["constrained_optimum"].value < worth["optimum"].value


@pytest.mark.slow
def test_proxy_is_the_fall_of_the_score_and_can_be_exploited(ward: IcuSepsis, worth: Mapping[str, Reference]) -> None:
    world = ward.make("train")
    for seed in range(20):
        world.reset(seed=seed)
        first, proxies, last, ended = world.patient, 0.0, world.patient, False
        while not ended:
            last = world.patient
            _, _, ended, _, info = world.step(int(np.flatnonzero(world.action_mask())[0]))
            proxies += info["proxy"]
        assert proxies == pytest.approx(records().sofa[first] - records().sofa[last])
    share = (worth["optimum"].value - worth["proxy_optimum"].value) / (worth["optimum"].value - worth["random"].value)
    assert worth["proxy_optimum"].value > worth["random"].value and share > 0.5


@pytest.mark.slow
def test_nothing_is_hidden(worth: Mapping[str, Reference]) -> None:
    assert worth["informed"].value == pytest.approx(worth["optimum"].value)
    assert max(worth["best_constant"].value, worth["open_loop"].value) < worth["random"].value + 0.3 * (worth["optimum"].value - worth["random"].value)


@pytest.mark.slow
def test_shift_brings_sicker_patients_into_the_same_ward(ward: IcuSepsis, numbers: SepsisModel) -> None:
    shifted = ward.model_of("shift")
    assert shifted.starts @ records().sofa > numbers.starts @ records().sofa + 1
    np.testing.assert_allclose(ward.oracle("shift").action_values(EVERY_STATE), ward.oracle("train").action_values(EVERY_STATE), atol=1e-9)
    assert shifted.informed() < numbers.informed()


def test_the_same_luck_for_whoever_plays(ward: IcuSepsis) -> None:
    """The n-th act of a seed meets the same chance, whatever was done before."""
    one, other = ward.make("train"), ward.make("train")
    for world, place in ((one, 0), (other, -1)):
        world.reset(seed=7)
        world.step(int(np.flatnonzero(world.action_mask())[place]))
    assert one.np_random.bit_generator.state == other.np_random.bit_generator.state


def test_chart_tells_the_grades_and_the_reasons(ward: IcuSepsis) -> None:
    world = SepsisWorld(ward.model_of("train"), TRAIN, 0.0, ward.max_steps)
    text, _ = world.reset(seed=3)
    for reading, grade, line in zip(READINGS, world.model.grades[world.patient], text.split("\n"), strict=True):
        label, said = line.split(": ", 1)
        assert label == reading.label and said in TRAIN[reading.topic][GRADES[grade]]
        for value, phrases in FACTS.get(label, {}).items():
            assert (set(phrases) <= set(world.grounds().true)) == (value == GRADES[grade])
            assert (set(phrases) <= set(world.grounds().false)) == (value != GRADES[grade] != "middle")


def test_wordings() -> None:
    assert lexicon_overlap(TRAIN, TEST) == {}
    topics = {reading.topic for reading in READINGS}
    for bank, least in ((TRAIN, 59), (TEST, 12)):
        assert set(bank) == topics and all(tuple(grades) == GRADES for grades in bank.values())
        for grades in bank.values():
            utterances = [utterance.lower() for many in grades.values() for utterance in many]
            assert len(utterances) == len(set(utterances))
            assert all(len(many) >= least for many in grades.values())


@pytest.mark.parametrize(
    ("said", "act"),
    [
        ("Administer a moderate fluid bolus with low-dose vasopressors.", "moderate_fluid_light_pressor"),
        ("Fluids: small; vasopressor: high", "small_fluid_strong_pressor"),
        ("No fluids, no pressors.", "no_fluid_no_pressor"),
        ("Hold fluids and start a low dose of norepinephrine because of failing organs", "no_fluid_light_pressor"),
        ("Very low blood pressure, so a large bolus and maximum vasopressor", "large_fluid_extreme_pressor"),
        ("a small bolus", None),  # both doses have to be named
    ],
)
def test_doses_are_understood(said: str, act: str | None) -> None:
    understood = load_phrasebook(WORDINGS / "acts.yaml", ACTS).understand(said)
    assert (None if understood is None else ACTS[understood]) == act


def test_missing_data_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="healthcare"):
        records.__wrapped__()
    assert model.records is records
