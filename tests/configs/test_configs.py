"""Every YAML of the menu can be chosen, and builds; every constructor parameter stands in a YAML, and nothing else does."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import shlex
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, TypeAdapter

from framework.algorithms.sb3 import StableBaselines
from framework.assemble import assemble
from framework.cli import prepare
from framework.config import CONF, fitting, options
from framework.errors import ConfigError
from framework.experiment import Experiment, Run
from framework.interfaces import LanguageModel, SpeakingPolicy
from framework.lm.encoder import LineEncoder

GIVEN = {  # constructor arguments that are other parts, not settings
    "policy": {"lm", "n_acts", "domain"},
    "lm": {"adapter", "rollout"},
    "data": {"domain"},
    "reward": {"reader", "lm", "domain"},
    "tracker": {"directory", "config", "group", "name"},
}
ACROSS = ("preset", "without", "parameterisation")  # groups that change others
TALKS = ["algo=sft", "data=faq"]  # what a model that generates is built with
PAIRS = ["data=preferences", "data.path=somewhere"]
SPEAKING = [f"policy={name}" for name in fitting("policy", SpeakingPolicy)] + ["warm_start=sft"]  # what goes with a policy that acts in words
NEEDED = {  # what an option cannot do without
    "lm=local": ["lm.path=somewhere"],
    "rollout=vllm": ["algo=grpo"],
    **{f"lm={name}": TALKS for name in fitting("lm", LanguageModel)},
    **dict.fromkeys(("adapter=full", "experiment=finetune", "experiment=chat", "experiment=export"), TALKS),
    "experiment=generate": [*TALKS, "experiment.prompts=somewhere"],
    "algo=sft": ["data=faq"],
    **dict.fromkeys(("algo=dpo", "algo=kto", "algo=orpo"), PAIRS),
    "experiment=align": ["algo=dpo", *PAIRS],
    **dict.fromkeys(SPEAKING, ["algo=grpo"]),
    **{f"data={name}": ["algo=sft"] for name in options("data") if name != "none"},
    "data=file": ["algo=sft", "data.path=somewhere"],
    "data=preferences": ["algo=dpo", "data.path=somewhere"],
    "experiment=fit_reward": ["data=preferences", "data.path=somewhere"],
    "preset=words": ["algo=grpo"],
    **{f"without={name}": ["algo=ppo_text"] for name in options("without")},
    "reward=judge": ["reward.model=somebody"],
    "reward=function": ["reward.function=framework.interfaces.RewardModel"],
    "reward=graders": ["reward.grader={type: string_check, input: '{{ sample.output_text }}', reference: stop, operation: like}"],
}
CHOICES = [f"{folder.name}={name}" for folder in sorted(CONF.iterdir()) if folder.is_dir() for name in options(folder.name)]
WORLDS = [f"domain={name}" for name in options("domain")]
WORLDS = [f"{choice} domain.environment={world}" for choice in WORLDS for world in OmegaConf.load(CONF / "domain" / f"{choice[7:]}.yaml")["worlds"]]


def composed(*arguments: str) -> DictConfig:
    prepared = prepare(list(arguments))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=prepared)


def built(directory: Path, *arguments: str) -> tuple[Experiment, Run]:
    arguments = ("tracker=none", *arguments) if not any(argument.startswith(("tracker=", "preset=")) for argument in arguments) else arguments
    chosen = {argument.split("=")[0]: argument.split("=")[1] for argument in arguments if "." not in argument.split("=")[0]}
    experiment, run = assemble(composed(*arguments), directory, chosen, arguments, None)
    run.tracker.close()
    return experiment, run


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")


@pytest.mark.slow
@pytest.mark.parametrize("choice", [*CHOICES, *WORLDS])
def test_every_choice_builds_and_loads_nothing_heavy(choice: str, tmp_path: Path) -> None:
    experiment, run = built(tmp_path, *choice.split(), *NEEDED.get(choice, []))
    assert isinstance(experiment, Experiment)
    if "domain" in run.parts:
        assert len(run.domain.acts) > 1
    assert not hasattr(run.parts.get("lm"), "model") and not hasattr(run.parts.get("policy"), "network")
    assert {path.name for path in tmp_path.iterdir()} <= {"config.yaml", "metrics.jsonl", "tensorboard", "wandb"}


@pytest.mark.slow
@pytest.mark.parametrize("lm", fitting("lm", LineEncoder))
@pytest.mark.parametrize("algo", fitting("algo", StableBaselines))
def test_algorithms_and_readers_go_together(algo: str, lm: str, tmp_path: Path) -> None:
    _, run = built(tmp_path, f"algo={algo}", f"lm={lm}", *NEEDED.get(f"lm={lm}", []))
    assert run.identity["algo"] == algo and run.identity["lm"] == lm


def test_data_may_be_named_by_its_file(tmp_path: Path) -> None:
    _, run = built(tmp_path, "algo=sft", "data=some dir/my [first] rows.csv")
    assert run.data.path == "some dir/my [first] rows.csv" and run.identity["data"] == "my [first] rows"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        (["domain=healthcare"], "healthcare-NewbornTriage"),
        (["algo=sft", "data=faq"], "faq"),
        (["algo=grpo", "data=some dir/my rows.csv"], "my rows"),
        (["algo=sft", "data=file"], "file"),  # whose path is still to be asked for
    ],
)
def test_a_run_lies_under_the_name_of_what_it_is_about(arguments: list[str], folder: str) -> None:
    prepared = prepare(arguments)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=prepared, return_hydra_config=True)
    assert Path(config.hydra.run.dir).parts[:2] == ("outputs", folder) and Path(config.hydra.sweep.dir).parts[:2] == ("multirun", folder)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["algo=sft"], "data: must be given: data=FILE"),
        (
            ["algo=sft", "experiment=train"],
            "algo: Train cannot use SFT, which is no Algorithm; choose one of: a2c, best_of_n, dqn, grpo, ppo, ppo_lagrangian, ",
        ),
        (["experiment=finetune", "data=faq", "lm=tiny"], "algo: Finetune cannot use PPO, which is no ConversationTuning; choose one of: sft"),
        (["algo=sft", "data=faq", "lm=minilm", "adapter=lora"], "lm: Finetune cannot use PretrainedEncoder, which is no LanguageModel; choose one of: "),
        (["algo=grpo", "policy=head", "lm=tfidf", "adapter=frozen"], "policy: Train cannot use HeadPolicy, which is no SpeakingPolicy"),
        (["algo=grpo", "lm=tfidf", "adapter=frozen"], "lm: TfidfEncoder does not go with GenerativePolicy, which takes LanguageModel"),
        (["lm=tiny"], "lm: CausalLM does not go with HeadPolicy, which takes LineEncoder"),
        (["adapter=full"], "adapter: Full does not go with PretrainedEncoder, which takes Lora"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(arguments: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        built(tmp_path, *arguments)


def nodes(config: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every node with a target, with its place."""
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield place, config
        for key, value in config.items():
            yield from nodes(value, f"{place}.{key}")


@cache
def plain(choice: str) -> Mapping[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=[*choice.split(), *NEEDED.get(choice, [])])
    return typing.cast(Mapping[str, Any], OmegaConf.to_container(config, resolve=True))


def target(path: str) -> Any:
    return getattr(importlib.import_module(path.rpartition(".")[0]), path.rpartition(".")[2])


def settings(kind: Any, group: str) -> dict[str, inspect.Parameter]:
    group = "lm" if isinstance(kind, type) and issubclass(kind, LineEncoder) else group  # a reader stands in other groups too
    return {name: parameter for name, parameter in inspect.signature(kind).parameters.items() if name not in GIVEN.get(group, set())}


@cache
def shown(group: str) -> dict[str, set[str]]:
    """For each target in a group: every key that any of its YAMLs shows, all of them composed at once, side by side."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=[f"+{group}@shown.{number}={name}" for number, name in enumerate(options(group))])
    keys: dict[str, set[str]] = {}
    for _, node in nodes(OmegaConf.to_container(config.shown), group):
        keys.setdefault(node["_target_"], set()).update(map(str, node.keys() - {"_target_"}))
    return keys


@pytest.mark.parametrize("group", [folder.name for folder in sorted(CONF.iterdir()) if folder.is_dir() and folder.name not in ACROSS])
def test_the_constructor_is_the_schema(group: str) -> None:
    for path, keys in shown(group).items():
        parameters = settings(target(path), group)
        assert keys == parameters.keys(), f"{path}: not in any YAML: {parameters.keys() - keys}; unknown: {keys - parameters.keys()}"


@pytest.mark.parametrize("group", [folder.name for folder in sorted(CONF.iterdir()) if folder.is_dir() and folder.name not in ACROSS])
def test_every_setting_has_a_type_that_can_be_checked(group: str) -> None:
    for path in shown(group):
        kind = target(path)
        hints = typing.get_type_hints(kind if dataclasses.is_dataclass(kind) else kind.__init__, include_extras=True)
        for name in settings(kind, group):
            assert hints.get(name, Any) is not Any, f"{path}.{name} has no type"
            TypeAdapter(hints[name], config=None if dataclasses.is_dataclass(hints[name]) else ConfigDict(arbitrary_types_allowed=True))


def test_presets_change_only_what_there_is() -> None:
    def leaves(config: Any, place: str = "") -> set[str]:
        return {place} if not isinstance(config, Mapping) else {leaf for key, value in config.items() for leaf in leaves(value, f"{place}.{key}".lstrip("."))}

    for group, name in ((kind, option) for kind in ("preset", "parameterisation") for option in options(kind)):
        preset = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
        assert isinstance(preset, dict)
        entries = preset.pop("defaults", [])
        assert {entry for entry in entries if isinstance(entry, str)} <= {*options(group), "_self_"}
        groups = {key.removeprefix("override /"): choice for entry in entries if isinstance(entry, dict) for key, choice in entry.items()}
        needed = NEEDED.get(f"{group}={name}", [])
        known = leaves(plain(" ".join(["seed=0", *needed, *(f"{changed}={choice}" for changed, choice in groups.items() if "@" not in changed)])))
        unknown = {key for key in leaves(preset) if key not in known}
        assert not unknown, f"{group}={name} sets {unknown}"


def test_every_yaml_says_what_it_is() -> None:
    for path in CONF.rglob("*.yaml"):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith("# ") and len(first) > 10, f"{path}: the first line is a comment that says what is chosen"


def test_the_examples_of_the_help_text_are_accepted() -> None:
    template = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"))["hydra"]["help"]["template"]  # type: ignore[index,call-overload]
    examples = re.findall(r"python run\.py (.+?)(?:\s{3,}.*)?$", template, flags=re.MULTILINE)
    assert len(examples) > 5
    for example in examples:
        if "DIR" not in example:
            prepare(shlex.split(example))
