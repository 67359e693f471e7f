"""From a composed configuration to the parts of a run. Everything is checked and built before anything heavy is loaded."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from framework.config import build, build_domain, check_record, fitting, resolve, to_dict
from framework.constrained import within_limits
from framework.errors import ConfigError
from framework.experiment import Experiment, Run, Settings
from framework.interfaces import DataSource
from framework.seeding import seed_everything
from framework.tracking import JsonlTracker, Trackers, redact
from framework.worlds.prompts import Prompts

_TOP = ("seed", "device", "threads", "checkpoint", "resume")
_OPTIONAL = ("warm_start",)  # groups in which `none` is a choice


def assemble(config: DictConfig, directory: Path, chosen: Mapping[str, str], overrides: Sequence[str], sweep: str | None) -> tuple[Experiment, Run]:
    """Builds the experiment and the run it is given.

    Args:
        config: composed by Hydra.
        directory: of the run.
        chosen: what was chosen in each group.
        overrides: of the command line.
        sweep: directory of the sweep the run belongs to, if any.

    Raises:
        UserError: a setting is wrong; nothing has been loaded or written.
    """
    gc.collect()  # the parts of a run refer to one another in circles: what a sweep's last job held goes before the next comes
    plain = to_dict(config)  # all references resolved, before anything is built
    settings = check_record(Settings, {key: plain[key] for key in _TOP}, "config")
    device = settings.torch_device()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    experiment: Experiment = build(config.experiment, "experiment")
    parts = _parts(config, experiment)
    told = _names(parts, chosen)
    directory = Path(settings.resume) if settings.resume else directory
    plain = redact(plain)
    if not settings.resume:  # a run that may yet be refused is not touched
        (directory / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(plain)), encoding="utf-8")
    subject = [parts[group] for group in ("domain", "data") if group in parts][:1]
    title = "-".join(
        [*(getattr(part, "environment", None) or part.name for part in subject), *(told[g] for g in ("algo", "lm") if g in told), str(settings.seed)]
    )
    kept = build(config.tracker, "tracker", directory=directory, config=plain, group=sweep and Path(sweep).name, name=title)
    shown = redact(dict(override.split("=", 1) for override in overrides if "=" in override))
    choices = tuple(f"{key}={shown[key]}" if given else key for key, given, _ in (override.partition("=") for override in overrides))  # or ~key
    seed_everything(settings.seed)
    return experiment, Run(parts, Trackers(JsonlTracker(directory), kept), settings, device, directory, plain, told, choices)


def _parts(config: DictConfig, experiment: Experiment) -> dict[str, Any]:
    """What the experiment needs, and what that needs in turn.

    Raises:
        ConfigError: a part is of another kind than is needed; names the choices that fit.
    """
    algorithm = build(config.algo, "algo")
    needs = experiment.needs(algorithm)
    parts: dict[str, Any] = {}

    def put(group: str, part: Any) -> None:
        if group in needs and not isinstance(part, needs[group]) and not (group in _OPTIONAL and part is None):
            mistaken = f"{type(experiment).__name__} cannot use {type(part).__name__}, which is no {needs[group].__name__}"
            raise ConfigError(group, f"{mistaken}; choose one of: {', '.join(fitting(group, needs[group]))}")
        parts[group] = part

    if "algo" in needs:
        put("algo", algorithm)
    answered = "domain" in needs and "data" not in needs and "_target_" in config.data  # the prompts of data are the world
    if "data" in needs and "_target_" not in config.data:
        raise ConfigError("data", f"must be given: data=FILE, or a ready-made source ({', '.join(fitting('data', needs['data']))})")
    reads = ("data" in needs or answered) and _takes(config.data, "domain", "data")
    domain = _domain(config) if reads or ("domain" in needs and not answered) else None
    source = build(config.data, "data", **({"domain": domain} if reads else {})) if "data" in needs or answered else None
    if answered:
        domain = _prompts(source)
    if "domain" in needs:
        put("domain", domain)
    if "data" in needs:
        put("data", source)
    if "reward" in needs:
        given: dict[str, Callable[[], Any]] = {
            "domain": lambda: domain or _domain(config),
            "reader": lambda: _language_model(config),  # it reads as the policy does, by a reader of its own
        }
        if "policy" not in needs:  # where there is one, the model is the policy's
            given["lm"] = lambda: _language_model(config)
        put("reward", _reward(config.reward, "reward", given))
    if {"lm", "policy"} & needs.keys():
        put("lm", _language_model(config))
    if "policy" in needs:
        assert domain is not None
        acts = {"domain": domain} if _takes(config.policy, "domain", "policy") else {"n_acts": len(domain.acts)}
        put("policy", build(config.policy, "policy", lm=parts["lm"], **acts))
    if "warm_start" in needs:
        put("warm_start", build(config.warm_start, "warm_start") if "_target_" in config.warm_start else None)
    return parts


def _prompts(source: Any) -> Prompts:
    """Data as the world of a policy.

    Raises:
        ConfigError: they have nothing to answer.
    """
    if not isinstance(source, DataSource):
        told = f"a policy answers the prompts of conversations, and {type(source).__name__} has none"
        raise ConfigError("data", f"{told}; choose one of: {', '.join(fitting('data', DataSource))}, or fit a reward to it: experiment=fit_reward")
    return Prompts(source)


def _reward(node: Mapping[str, Any], place: str, given: Mapping[str, Callable[[], Any]]) -> Any:
    """A reward with those parts that its constructor takes and its settings do not name; rewards that stand within it are made before it, in the same way."""

    def within(value: Any, place: str) -> Any:
        if not isinstance(value, Mapping):
            return value
        return _reward(value, place, given) if "_target_" in value else {key: within(part, f"{place}.{key}") for key, part in value.items()}

    settings = {key: within(value, f"{place}.{key}") for key, value in to_dict(node).items()}
    return build(settings, place, **{name: make() for name, make in given.items() if name not in settings and _takes(settings, name, place)})


def _domain(config: DictConfig) -> Any:
    """The world within the limits that the algorithm is told, if any: whatever knows limits has them from the domain.

    A sweep's next job in the same world is given the same domain, for its optimum takes seconds to find. Runs change nothing of it.
    """
    node = within_limits(to_dict(config.domain), to_dict(config.algo).get("cost_limit"))
    settings = repr(node)
    if settings not in _built_last:
        if _built_last:
            _built_last.clear()
            gc.collect()  # tables may take a gigabyte: the last ones go before the next come
        _built_last[settings] = build_domain(node)
    return _built_last[settings]


_built_last: dict[str, Any] = {}  # one domain, by its settings


def _language_model(config: DictConfig) -> Any:
    chosen = {group: build(config[group], group) for group in ("adapter", "rollout") if "_target_" in config[group]}
    return build(config.lm, "lm", **chosen)


def _takes(node: Mapping[str, Any], name: str, place: str) -> bool:
    """Whether the constructor of the node at a place has a parameter of that name."""
    return "_target_" in node and name in inspect.signature(resolve(str(node["_target_"]), f"{place}._target_")).parameters


def _names(parts: Mapping[str, Any], chosen: Mapping[str, str]) -> dict[str, str]:
    """What was chosen in the groups that have to do with a run's parts."""
    of = {"adapter": "lm", "algo": "policy", "reward": "policy"}  # what changed a part or made it, though the run may have no more use for it
    groups = [group for group in ("algo", "policy", "lm", "adapter", "warm_start", "reward") if group in parts or of.get(group) in parts]
    return {**({"data": parts["data"].name} if "data" in parts else {}), **{group: str(chosen.get(group) or "none") for group in groups}}
