"""Every world that ships keeps every promise; and the kit notices when one is broken."""

from __future__ import annotations

import importlib
import itertools
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from omegaconf import OmegaConf

from experiments.check_domain import CheckDomain
from framework import conformance
from framework.config import CONF, build_domain, config_folders, load_domain, options, to_dict
from framework.conformance import RULES, Rule, check_domain, run_rule, speed
from framework.interfaces import Domain
from framework.oracles.information_state import Test as Question  # under its own name pytest would collect it
from framework.types import Bools, Floats, Grounds, Ints, Reference, Transition
from framework.worlds import wordings
from framework.worlds.interview import Interview, InterviewDomain, InterviewOracle, InterviewWorld
from framework.worlds.played import PlayedDomain


def worlds() -> list[tuple[str, str]]:
    files = {name: next(path for folder in config_folders() if (path := folder / "domain" / f"{name}.yaml").exists()) for name in options("domain")}
    return [(name, str(environment)) for name, path in files.items() for environment in OmegaConf.load(path)["worlds"]]


@lru_cache(maxsize=1)  # the rules come world by world, and a solved world may hold a gigabyte
def domain(name: str, environment: str) -> Domain:
    loaded: Domain = load_domain(name, environment)
    if isinstance(loaded, PlayedDomain):
        loaded.episodes = 50  # an expert who needs more to be told from chance is none
    return loaded


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("world", worlds(), ids="/".join)
def test_world_keeps_its_promise(world: tuple[str, str], rule: Rule) -> None:
    check = run_rule(rule, domain(*world))
    assert check.passed, check.detail


@pytest.mark.parametrize(("name", "environment"), [world for world in worlds() if "rehearsal" in OmegaConf.load(CONF / "domain" / f"{world[0]}.yaml")])
def test_a_rehearsal_holds_training_wordings_out_and_opens_no_others(name: str, environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    load = wordings.load_bank
    monkeypatch.setattr(wordings, "load_bank", lambda path: (opened.append(path.name), load(path))[1])
    settings = to_dict(OmegaConf.load(CONF / "domain" / f"{name}.yaml"))
    rehearsal = build_domain({**settings, "environment": environment, "rehearsal": True})
    for split in rehearsal.splits:
        rehearsal.make(split)
    assert opened and "test.yaml" not in opened
    assert build_domain({**settings, "environment": environment}).make("test") and "test.yaml" in opened


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in (CONF.parent / "domains").glob("*/*/wordings/train.yaml")}), ids=lambda folder: folder.parent.name
)
def test_what_a_rehearsal_holds_out_is_in_no_other_split(folder: Path) -> None:
    whole, known, held = wordings.load_bank(folder / "train.yaml"), wordings.bank_of(folder, "validation", True), wordings.bank_of(folder, "test", True)
    parted = [(topic, value) for topic, values in whole.items() for value, said in values.items() if len(said) >= 5]
    assert parted
    for topic, value in parted:
        assert sorted(known[topic][value] + held[topic][value]) == sorted(whole[topic][value]) and held[topic][value]


@pytest.mark.parametrize(("name", "environment"), worlds())
def test_gymnasium_makes_it(name: str, environment: str) -> None:
    importlib.import_module(f"domains.{name}")
    world = gymnasium.make(f"{name}/{environment}-v0")
    shown, info = world.reset(seed=0)
    again, *_ = world.step(int(np.flatnonzero(info["action_mask"])[-1]))
    assert world.observation_space.contains(shown) and world.observation_space.contains(again)
    assert gymnasium.make(f"{name}/{environment}-v0", split="test").reset(seed=0)[0] != shown


# A small world that keeps every promise, and ways to break one.

WORDS = {"train": (("dry", "dusty"), ("damp", "misty")), "test": (("parched", "arid"), ("soaked", "dripping"))}


class ToyWorld(InterviewWorld):
    """Is the ground wet? Two looks at it, then plant or wait."""

    def __init__(self, interview: Interview, words: tuple[tuple[str, ...], ...]) -> None:
        super().__init__(interview)
        self.words = words

    def opening(self, rng: np.random.Generator) -> list[str]:
        return [f"morning: {self.words[int(rng.integers(2))][int(rng.integers(2))][::-1]} {rng.integers(50)}"]

    def answer(self, test: int, outcome: int, chance: float) -> list[str]:
        return [f"look {test}: {self.words[outcome][int(chance * 2)]}"]

    def grounds(self) -> Grounds:
        seen = set(self.outcomes) - {-1}
        told = ("it is dry", "it is wet")
        return Grounds([told[outcome] for outcome in seen], [told[outcome] for outcome in {0, 1} - seen])


class Toy(InterviewDomain):
    """The world's domain; its parts can be swapped for broken ones."""

    name, environment = "toy", "Toy"
    phrases = Path(__file__).parent / "toy_acts.yaml"
    proxy = "the seed shop's: planting pays whatever the ground is like"
    cost_limits: Mapping[str, float] = MappingProxyType({"rushed": 0.1})
    proxy_pays = True
    World = ToyWorld
    Oracle = InterviewOracle

    def interview(self, shifted: bool) -> Interview:
        looks = tuple(Question(f"look_{i}", 0.1, (np.array([[0.8, 0.2], [0.2, 0.8]]),)) for i in range(2))
        return Interview(
            prior=np.array([[0.4, 0.6] if shifted else [0.5, 0.5]]),
            tests=looks,
            decisions=("plant", "wait"),
            utilities=np.array([[-4.0, 1.0], [4.0, -1.0]]),
            heuristic=lambda outcomes: np.select([outcomes[:, 0] < 0, outcomes[:, 0] == 1], [0, 2], 3),
            duties={"rushed": (("look_0", "look_1"),)},
            exempt=("wait",),
            proxy_utilities=np.array([[2.0, 0.0], [2.0, 0.0]]) if self.proxy_pays else None,
        )

    def make(self, split: str) -> ToyWorld:
        return self.World(self.numbers_of(split), WORDS["test" if split == "test" else "train"])

    def oracle(self, split: str) -> InterviewOracle:
        shifted = split == "shift"
        if shifted not in self._oracles:
            self._oracles[shifted] = self.Oracle(self.numbers_of(split), self.cost_limits)
        return self._oracles[shifted]


class HiddenTerms(ToyWorld):
    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        text, reward, terminated, truncated, info = super().step(action)
        return text, reward, terminated, truncated, info | {"reward_terms": {"outcome": reward + 1}}


class OtherReward(ToyWorld):
    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        text, reward, terminated, truncated, info = super().step(action)
        return text, reward + 1, terminated, truncated, info


class OpenMask(ToyWorld):
    def action_mask(self) -> Bools:
        return np.ones(len(self.acts), bool)


class Forgetful(ToyWorld):
    def set_world(self, state: Mapping[str, Any]) -> None:
        super().set_world({**state, "chance": np.full((2, 2), 0.5)})


class Unseeded(ToyWorld):
    clock = itertools.count()

    def begin(self, rng: np.random.Generator, options: Mapping[str, Any]) -> list[str]:
        return super().begin(np.random.default_rng(next(self.clock)), options)


class Betrayed(ToyWorld):
    def opening(self, rng: np.random.Generator) -> list[str]:
        return [super().opening(rng)[0] + ("" if rng.random() < 0.5 else (" cloud", " sun")[self.hypothesis])]


class Silent(ToyWorld):
    def __init__(self, interview: Interview, words: tuple[tuple[str, ...], ...]) -> None:
        super().__init__(interview, WORDS["train"])


class Rambling(ToyWorld):
    def answer(self, test: int, outcome: int, chance: float) -> list[str]:
        return [super().answer(test, outcome, chance)[0] + " so" * 60]


class Charmed(ToyWorld):
    def act(self, action: int) -> Any:
        self.lines.append("a cha\u0307rm")  # outside the character set
        return super().act(action)


class Deaf(ToyWorld):
    def idle(self) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return self._advance(Transition({"annoyance": -1.0}))


class Muddled(ToyWorld):
    def grounds(self) -> Grounds:
        return Grounds(["it is dry"], ["it is dry", "is dry", "say"])


class OffByOne(InterviewOracle):
    def action_values(self, states: Ints) -> Floats:
        return super().action_values(states) + 1


class Boastful(InterviewOracle):
    @property
    def references(self) -> Mapping[str, Reference]:  # type: ignore[override]
        said = super().references
        return {**said, "optimum": Reference(said["optimum"].value + 0.2, said["optimum"].costs)}


class Worthless(InterviewOracle):
    @property
    def references(self) -> Mapping[str, Reference]:  # type: ignore[override]
        return {**super().references, "informed": Reference(100.0)}


@pytest.fixture
def fewer_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A toy is simple: fewer episodes tell as much of it."""
    for size, episodes in {"_EPISODES": 60, "_ROLLED_OUT": 500, "_PROBED": 600, "MIN_PROMPTS": 300}.items():
        monkeypatch.setattr(conformance, size, episodes)


@pytest.mark.slow
@pytest.mark.usefixtures("fewer_episodes")
def test_a_sound_toy_passes() -> None:
    failed = [check for check in check_domain(Toy()) if not check.passed]
    assert not failed, failed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"World": HiddenTerms}, {"step"}),
        ({"World": OtherReward}, {"step", "forbidden", "lemma", "rollout"}),
        ({"World": OpenMask}, {"action_values", "lemma"}),
        ({"World": Forgetful}, {"state"}),
        ({"World": Unseeded}, {"gymnasium_env", "seeding", "state", "demonstrations"}),
        ({"World": Betrayed}, {"leak"}),
        ({"World": Silent}, {"wordings"}),
        ({"World": Rambling}, {"text"}),
        ({"World": Charmed}, {"text"}),
        ({"World": Deaf}, {"forbidden", "words"}),
        ({"World": Muddled}, {"words"}),
        ({"proxy_pays": 0.0}, {"proxy"}),
        ({"cost_limits": {"rushed": -0.1}}, {"action_values", "rollout", "order", "language_value", "limits", "proxy", "words", "leak"}),
        ({"Oracle": OffByOne}, {"lemma", "rollout"}),
        ({"Oracle": Boastful}, {"rollout"}),
        ({"Oracle": Worthless}, {"language_value"}),
        ({"cost_limits": {"rush": 0.1}}, {"step"}),
        ({"splits": ("train", "train")}, {"splits"}),
    ],
    ids=lambda value: "-".join(sorted(getattr(part, "__name__", str(name)) for name, part in value.items())) if isinstance(value, dict) else "",
)
@pytest.mark.usefixtures("fewer_episodes")
def test_a_broken_toy_fails_exactly_there(parts: dict[str, Any], expected: set[str]) -> None:
    toy = type("BrokenToy", (Toy,), parts)()
    assert {check.name for check in check_domain(toy) if not check.passed} == expected


def test_an_exception_is_a_failed_check() -> None:
    check = run_rule(RULES[0], Domain.__new__(type("Empty", (Toy,), {"make": lambda self, split: 1 / 0})))
    assert not check.passed and check.detail.startswith("ZeroDivisionError")


@pytest.mark.slow
@pytest.mark.usefixtures("fewer_episodes")
def test_the_procedure_writes_its_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert CheckDomain().run(SimpleNamespace(domain=Toy(), directory=tmp_path))
    written = json.loads((tmp_path / "checks.json").read_text())
    assert [check["name"] for check in written] == [rule.__name__ for rule in (*RULES, speed)]
    assert "toy/Toy" in capsys.readouterr().out
    leaky = type("Leaky", (Toy,), {"World": HiddenTerms})()
    assert not CheckDomain().run(SimpleNamespace(domain=leaky, directory=tmp_path))
