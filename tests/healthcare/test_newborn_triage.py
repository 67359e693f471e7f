"""The referral line: its tables against the published network, its numbers by hand, its proxy, its limits and its words."""

from __future__ import annotations

import importlib.util
import itertools
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from domains.healthcare.newborn_triage import NewbornTriage, model
from domains.healthcare.newborn_triage.model import DISEASES, FINDINGS, network
from framework.config import load_domain
from framework.errors import MissingExtraError
from framework.types import Floats, Reference
from framework.worlds.environments import CHARSET
from framework.worlds.free_text import load_phrasebook
from framework.worlds.interview import Interview, InterviewOracle
from framework.worlds.wordings import lexicon_overlap, load_bank

WORDINGS = Path(model.__file__).parent / "wordings"
TRAIN, TEST, FACTS = (load_bank(WORDINGS / f"{name}.yaml") for name in ("train", "test", "facts"))
VARIABLES = [variable for variable, _ in FINDINGS.values()]


@pytest.fixture(scope="module")
def line() -> NewbornTriage:
    return load_domain("healthcare", "NewbornTriage")


@pytest.fixture(scope="module")
def interview(line: NewbornTriage) -> Interview:
    return line.numbers_of("train")


@pytest.fixture(scope="module")
def worth(line: NewbornTriage) -> Mapping[str, Reference]:
    return line.oracle("train").references


def by_disease(table: Floats) -> Floats:
    """Sums rows of hypotheses into the six diseases."""
    return table.reshape(len(DISEASES), -1, *table.shape[1:]).sum(axis=1)


def test_diseases_and_findings_are_the_networks(interview: Interview) -> None:
    nodes = network().nodes
    assert len(nodes) == 20 and nodes["Disease"].states == DISEASES
    assert [len(states) for _, states in FINDINGS.values()] == [len(nodes[variable].states) for variable in VARIABLES]
    np.testing.assert_allclose(by_disease(interview.prior[0]), [0.0476, 0.3331, 0.2913, 0.2262, 0.0509, 0.0509], atol=5e-5)


def test_findings_are_independent_given_the_hypothesis(interview: Interview) -> None:
    """The product over findings, summed over hypotheses, is the network's own joint distribution of disease and all eight findings."""
    joint = interview.prior[0][:, None]
    for test in interview.tests:
        joint = (joint[:, :, None] * test.likelihoods[0][:, None, :]).reshape(len(joint), -1)
    exact = network().joint(("Disease", *VARIABLES)).reshape(len(DISEASES), -1)
    np.testing.assert_allclose(by_disease(joint), exact, atol=1e-15)
    assert exact.max(axis=0).sum() == pytest.approx(0.622, abs=5e-4)  # with every finding four in ten diagnoses are still wrong


def test_two_findings_by_brute_force(interview: Interview) -> None:
    """Age and ECG alone: every order of asking, every decision, on probabilities from the network."""
    short = replace(interview, tests=tuple(test for test in interview.tests if test.name in ("ask_age", "ask_ecg")), heuristic=lambda seen: seen[:, 0] * 0 + 2)
    joint, utilities = network().joint(("Disease", "Age", "LVHreport")), by_disease(interview.utilities) / 18
    prices = [test.price for test in short.tests]

    def best(given: Floats, left: tuple[int, ...]) -> float:
        """Value of a state, times its probability; `given` is P(disease, outcomes seen, outcomes still open)."""
        values = [(given.reshape(len(DISEASES), -1).sum(axis=1) @ utilities).max()]
        for test in left:
            others = tuple(other for other in left if other != test)
            branches = [best(given.take([outcome], axis=1 + test), others) for outcome in range(given.shape[1 + test])]
            values.append(sum(branches) - prices[test] * given.sum())
        return float(max(values))

    limits = {"undertriage": 1.0, "overtriage": 1.0}
    assert InterviewOracle(short, limits).references["optimum"].value == pytest.approx(best(joint, (0, 1)))


def test_delays_and_violations_by_hand(interview: Interview) -> None:
    assert interview.decisions == ("keep_pfc", "send_tga", "send_fallot", "send_paivs", "send_tapvd", "keep_lung", "hand_to_consultant")
    delay = dict(zip(DISEASES, -by_disease(interview.utilities) / 18, strict=True))
    assert delay["TGA"].tolist() == [480, 0, 180, 180, 180, 480, 135]
    assert delay["Fallot"].tolist() == [240, 180, 0, 180, 180, 240, 135]
    assert delay["Lung"].tolist() == [180, 300, 300, 300, 300, 0, 135]
    under, over = (dict(zip(DISEASES, by_disease(interview.costs[name]) / 18, strict=True)) for name in ("undertriage", "overtriage"))
    assert all(under[disease].tolist() == [1, 0, 0, 0, 0, 1, 0] for disease in ("TGA", "PAIVS", "TAPVD"))
    assert all(over[disease].tolist() == [0, 1, 1, 1, 1, 0, 0] for disease in ("PFC", "Lung"))
    assert not any(under[disease].any() for disease in ("PFC", "Fallot", "Lung")) and not any(over[disease].any() for disease in DISEASES[1:5])


def test_limits_are_those_of_trauma_centres(line: NewbornTriage, interview: Interview, worth: Mapping[str, Reference]) -> None:
    shares = by_disease(interview.prior[0])
    assert line.cost_limits["undertriage"] == pytest.approx(0.05 * shares[model.CRITICAL].sum(), abs=1e-3)
    assert line.cost_limits["overtriage"] == pytest.approx(0.35 * shares[~model.CARDIAC].sum(), abs=1e-3)
    free, within = worth["optimum"], worth["constrained_optimum"]
    assert free.costs["overtriage"] > line.cost_limits["overtriage"] == pytest.approx(within.costs["overtriage"])
    assert within.costs["undertriage"] <= line.cost_limits["undertriage"] and free.value - 5 < within.value < free.value


def test_references(line: NewbornTriage, worth: Mapping[str, Reference]) -> None:
    value = {name: reference.value for name, reference in worth.items()}
    assert value["random"] < value["best_constant"] < value["heuristic"] < value["optimum"] < value["informed"] == 0
    assert value["best_constant"] == pytest.approx(-(0.3331 * 0 + 0.5685 * 180 + 0.0985 * 300), abs=0.1)  # send everybody as TGA
    assert (value["optimum"] - value["best_constant"]) / (value["informed"] - value["best_constant"]) >= 0.3
    shift = line.oracle("shift").references
    assert shift["best_constant"].value == pytest.approx(-135)
    assert shift["heuristic"].value < -135  # there the registrar's habits are worse than handing over every call


def test_shift_changes_the_mix_and_nothing_else(line: NewbornTriage, interview: Interview) -> None:
    shifted = line.numbers_of("shift")
    np.testing.assert_allclose(by_disease(shifted.prior[0]), line.shift_mix)
    ratio = (shifted.prior / interview.prior).reshape(len(DISEASES), -1)
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape))
    assert all((one.likelihoods[0] == other.likelihoods[0]).all() for one, other in zip(interview.tests, shifted.tests, strict=True))


def test_proxy_likes_long_work_ups_and_cannot_tell_diagnoses_apart(line: NewbornTriage, interview: Interview, worth: Mapping[str, Reference]) -> None:
    assert interview.proxy_prices is not None and interview.proxy_utilities is not None
    assert (interview.proxy_prices == -15).all()
    liked = dict(zip(DISEASES, by_disease(interview.proxy_utilities) / 18, strict=True))
    assert liked["PAIVS"].tolist() == [-480, 0, 0, 0, 0, -480, -135] and liked["Lung"].tolist() == [0, -300, -300, -300, -300, 0, -135]
    assert worth["optimum"].value - worth["proxy_optimum"].value > 0.3 * (worth["optimum"].value - worth["random"].value)
    world, oracle = line.make("train"), line.oracle("train")
    for seed in range(20):
        world.reset(seed=seed)
        proxies, ended = [], False
        while not ended:
            act = int(oracle.probabilities("proxy_optimum", np.array([world.information_state()]))[0].argmax())
            *_, ended, _, info = world.step(act)
            proxies.append(info["proxy"])
        assert proxies[:-1] == [15] * len(FINDINGS)


def test_the_registrar_asks_four_findings_and_takes_the_likeliest_disease(line: NewbornTriage) -> None:
    world, oracle = line.make("train"), line.oracle("train")
    joint = network().joint(("Disease", "Age", "BirthAsphyxia", "GruntingReport", "LVHreport"))
    for seed in range(30):
        world.reset(seed=seed)
        acts, ended = [], False
        while not ended:
            acts.append(int(oracle.probabilities("heuristic", np.array([world.information_state()]))[0].argmax()))
            *_, ended, _, _ = world.step(acts[-1])
        seen = [world.outcomes[list(FINDINGS).index(finding)] for finding in ("age", "birth", "grunting", "ecg")]
        assert [world.acts[act] for act in acts[:-1]] == ["ask_age", "ask_birth", "ask_grunting", "ask_ecg"]
        assert acts[-1] == len(FINDINGS) + joint[:, *seen].argmax()


@pytest.mark.parametrize("split", ["train", "test", "shift"])
def test_environment_follows_gymnasium(line: NewbornTriage, split: str) -> None:
    check_env(line.make(split), skip_render_check=True)


def test_findings_are_told_from_the_bank_and_bear_out_what_they_say(line: NewbornTriage) -> None:
    for split, bank in (("train", TRAIN), ("test", TEST)):
        world = line.make(split)
        for seed in range(20):
            text, _ = world.reset(seed=seed)
            assert text.removeprefix("call: ") in bank["chat"]["call"] and world.grounds().true == []
            for number, (finding, (_, states)) in enumerate(FINDINGS.items()):
                said = world.step(number)[0].split("\n")[-line.utterances :]
                state = states[world.outcomes[number]]
                topic = "oxygen" if finding.endswith("oxygen") else finding
                assert len(set(said)) == line.utterances and all(told.split(": ", 1)[1] in bank[topic][state] for told in said)
                assert world.grounds().true[-1] in FACTS[finding][state]
            assert len(world.grounds().true) == 8 and not set(world.grounds().true) & set(world.grounds().false)


def test_wordings() -> None:
    assert lexicon_overlap(TRAIN, TEST) == {}
    topics = {finding if not finding.endswith("oxygen") else "oxygen": states for finding, (_, states) in FINDINGS.items()}
    for bank, least in ((TRAIN, 60), (TEST, 12)):
        assert {topic: tuple(values) for topic, values in bank.items() if topic != "chat"} == topics
        for topic, values in bank.items():
            utterances = [utterance.lower() for many in values.values() for utterance in many]
            assert len(utterances) == len(set(utterances)) and (topic == "chat" or all(len(many) >= least for many in values.values()))
            assert all(set(utterance) <= set(CHARSET) and len(re.findall(r"\w+", utterance)) < 25 for utterance in utterances)
    assert {finding: tuple(values) for finding, values in FACTS.items()} == {finding: states for finding, (_, states) in FINDINGS.items()}


def test_acts_in_words(line: NewbornTriage) -> None:
    """Enough is said of each act, and reasons given with it are taken neither for another act nor for a forbidden claim."""
    assert line.phrases is not None
    book, facts = load_phrasebook(line.phrases, line.acts), [phrase for values in FACTS.values() for said in values.values() for phrase in said]
    assert all(len(said) == len(set(said)) >= 8 for said in book.say) and len(book.because) >= 6 and book.never
    assert not any(one != other and one in other for one in facts for other in facts) and all(book.understand(fact) is None for fact in facts)
    pairs, templates = itertools.cycle(itertools.permutations(facts, 2)), itertools.cycle(book.because)
    for act, sentence in ((act, sentence) for act, sentences in enumerate(book.say) for sentence in sentences):
        said = next(templates).format(say=sentence, facts=" and ".join(next(pairs)))
        assert book.understand(said) == act, said
        assert not any(claim in said.lower() for claim in book.never)
    for said, act in {
        "Is there any evidence of LVH on the ECG?": "ask_ecg",
        "How old is the little one?": "ask_age",
        "Likely TGA with no grunting, please transfer to the cardiac centre.": "send_tga",
        "Keep the baby, it's a lung problem, the film is patchy.": "keep_lung",
        "I'd rather hand you over to my consultant.": "hand_to_consultant",
    }.items():
        assert book.understand(said) == line.acts.index(act)


def test_wrong_settings_are_named(line: NewbornTriage) -> None:
    with pytest.raises(ValueError, match="exactly the findings.*ecg"):
        replace(line.numbers, prices={finding: 1.0 for finding in FINDINGS if finding != "ecg"})
    with pytest.raises(ValueError, match="mix must sum to 1"):
        replace(line.numbers, mix=(0.5, 0.1, 0.1, 0.1, 0.1, 0.2))


def test_missing_data_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="healthcare"):
        network.__wrapped__()
