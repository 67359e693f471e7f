"""From a composed configuration to the parts of a run. Everything is checked and built before anything heavy is loaded."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from framework.config import build, build_domain, check_record, fitting, resolve, to_dict
from framework.errors import ConfigError
from framework.experiment import Experiment, Run, Settings
from framework.seeding import seed_everything
from framework.tracking import JsonlTracker, Trackers, redact

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
    choices = tuple(f"{key}={value}" for key, value in redact(dict(override.split("=", 1) for override in overrides if "=" in override)).items())
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
    domain = _domain(config.domain) if "domain" in needs or ("data" in needs and _takes(config.data, "domain")) else None
    if "domain" in needs:
        put("domain", domain)
    if "data" in needs:
        if "_target_" not in config.data:
            raise ConfigError("data", f"must be given: data=FILE, or a ready-made source ({', '.join(fitting('data', needs['data']))})")
        put("data", build(config.data, "data", **({"domain": domain} if _takes(config.data, "domain") else {})))
    if "reward" in needs:
        given = {
            "reader": "reader" not in config.reward,  # it reads as the policy does, by a reader of its own
            "lm": "policy" not in needs,  # where there is a policy, the model is the policy's
        }
        models = {name: _language_model(config) for name, so in given.items() if so and _takes(config.reward, name)}
        world = {"domain": domain} if _takes(config.reward, "domain") else {}
        put("reward", build(config.reward, "reward", **models, **world))
    if {"lm", "policy"} & needs.keys():
        put("lm", _language_model(config))
    if "policy" in needs:
        assert domain is not None
        acts = {"domain": domain} if _takes(config.policy, "domain") else {"n_acts": len(domain.acts)}
        put("policy", build(config.policy, "policy", lm=parts["lm"], **acts))
    if "warm_start" in needs:
        put("warm_start", build(config.warm_start, "warm_start") if "_target_" in config.warm_start else None)
    return parts


def _domain(node: DictConfig) -> Any:
    """A sweep's next job in the same world is given the same domain, for its optimum takes seconds to find. Runs change nothing of it."""
    settings = repr(to_dict(node))
    if settings not in _built_last:
        if _built_last:
            _built_last.clear()
            gc.collect()  # tables may take a gigabyte: the last ones go before the next come
        _built_last[settings] = build_domain(node)
    return _built_last[settings]


_built_last: dict[str, Any] = {}  # one domain, by its settings


def _language_model(config: DictConfig) -> Any:
    adapter = {"adapter": build(config.adapter, "adapter")} if "_target_" in config.adapter else {}
    return build(config.lm, "lm", **adapter)


def _takes(node: Mapping[str, Any], name: str) -> bool:
    """Whether a node's constructor has a parameter of that name."""
    return "_target_" in node and name in inspect.signature(resolve(str(node["_target_"]), "_target_")).parameters


def _names(parts: Mapping[str, Any], chosen: Mapping[str, str]) -> dict[str, str]:
    """What was chosen in the groups that have to do with a run's parts."""
    of = {"adapter": "lm", "algo": "policy", "reward": "policy"}  # what changed a part or made it, though the run may have no more use for it
    groups = [group for group in ("algo", "policy", "lm", "adapter", "warm_start", "reward") if group in parts or of.get(group) in parts]
    return {**({"data": parts["data"].name} if "data" in parts else {}), **{group: str(chosen.get(group) or "none") for group in groups}}
