"""From a composed configuration to the parts of a run. Everything is checked and built before anything heavy is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from framework.config import build, build_domain, check_record, to_dict
from framework.experiment import Experiment, Run, Settings
from framework.seeding import seed_everything
from framework.tracking import JsonlTracker, Trackers, redact

_TOP = ("seed", "device", "threads", "checkpoint", "resume")


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
    plain = to_dict(config)  # all references resolved, before anything is built
    settings = check_record(Settings, {key: plain[key] for key in _TOP}, "config")
    device = settings.torch_device()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    experiment = build(config.experiment, "experiment")
    domain = build_domain(config.domain)
    algorithm = build(config.algo, "algo")
    warm_start = build(config.warm_start, "warm_start") if "_target_" in config.warm_start else None
    adapter = {"adapter": build(config.adapter, "adapter")} if "_target_" in config.adapter else {}
    lm = build(config.lm, "lm", **adapter)
    policy = build(config.policy, "policy", lm=lm, n_acts=len(domain.acts))
    directory = Path(settings.resume) if settings.resume else directory
    plain = redact(plain)
    if not settings.resume:  # a run that may yet be refused is not touched
        (directory / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(plain)), encoding="utf-8")
    names = {group: str(chosen.get(group) or "none") for group in ("algo", "policy", "lm", "adapter", "warm_start")}
    title = f"{domain.environment}-{names['algo']}-{names['lm']}-{settings.seed}"
    kept = build(config.tracker, "tracker", directory=directory, config=plain, group=sweep and Path(sweep).name, name=title)
    choices = tuple(f"{key}={value}" for key, value in redact(dict(override.split("=", 1) for override in overrides if "=" in override)).items())
    seed_everything(settings.seed)
    tracker = Trackers(JsonlTracker(directory), kept)
    return experiment, Run(domain, policy, algorithm, warm_start, tracker, settings, device, directory, plain, names, choices)
