"""The command line before Hydra sees it: plug-ins are made known, mistakes get a near name, a checkpoint brings its own choices."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from framework.checkpoint import open_checkpoint
from framework.config import CONF, config_folders, options
from framework.errors import ConfigError, UserError, near


def _subject(_root_: DictConfig) -> str:
    """What a run is about, as its folder is called: its data, if it has any, or else its world."""
    data = str(_root_.hydra.runtime.choices.data)
    if data == "file" and not OmegaConf.is_missing(_root_.data, "path"):
        return Path(str(_root_.data.path)).stem
    if data != "none":
        return data
    return f"{_root_.domain.name}-{_root_.domain.environment}"


OmegaConf.register_new_resolver("subject", _subject, replace=True)

_FLAGS_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--info", "-i")


class PluginConfigs(SearchPathPlugin):
    """Adds the `conf` folder of every installed plug-in to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """See Hydra."""
        for folder in config_folders():
            if folder != CONF:
                search_path.append(provider="touchstone", path=f"file://{folder}")


def prepare(arguments: list[str]) -> list[str]:
    """Checks a command line and returns the one Hydra is to see.

    Raises:
        UserError: an unknown group, choice or key, or a directory that cannot be written; names a near one.
    """
    Plugins.instance().register(PluginConfigs)
    arguments = [part for argument in _with_choices_of_checkpoint(arguments) for part in _file_of_data(argument)]
    try:
        overrides = OverridesParser.create().parse_overrides(_overrides(arguments))
    except HydraException as error:
        raise ConfigError("command line", f"{str(error).splitlines()[0]}; settings are written key=value") from error
    groups = {folder.name for root in config_folders() for folder in root.iterdir() if folder.is_dir()}
    for override in overrides:
        if override.is_sweep_override() and not {"-m", "--multirun"} & set(arguments):
            raise ConfigError(override.key_or_group, "several values make a sweep, which needs the flag -m")
        if override.key_or_group in groups:
            _check_choices(override)
    chosen = [_first(override) for override in overrides if override.key_or_group in groups and not override.is_delete()]
    config = _compose(chosen)
    for override in overrides:
        if override.key_or_group not in groups and not (override.is_add() or override.is_delete() or override.is_force_add()):
            _check_key(config, override.key_or_group)
        if override.key_or_group in ("hydra.run.dir", "hydra.sweep.dir"):
            _check_writable(Path(str(override.value())))
    settings = _overrides(arguments)
    return [*(argument for argument in arguments if argument not in settings), *settings]  # Hydra knows no settings after a flag that follows others


def _file_of_data(argument: str) -> list[str]:
    """`data=FILE` is short for `data=file data.path=FILE`: whatever looks like a file and is no ready-made source."""
    group, _, choice = argument.partition("=")
    if group != "data" or choice in options("data") or not ({".", os.sep} & set(choice)) or "," in choice:
        return [argument]
    quoted = choice if choice[:1] in "'\"" else json.dumps(choice)  # a path may hold blanks and brackets
    return ["data=file", f"data.path={quoted}"]


def _overrides(arguments: list[str]) -> list[str]:
    """The arguments that are settings, not Hydra's flags or their values."""
    pairs = zip(["", *arguments], arguments, strict=False)
    return [argument for before, argument in pairs if not argument.startswith("-") and before not in _FLAGS_WITH_VALUE]


def _check_choices(override: Override) -> None:
    group, known = override.key_or_group, options(override.key_or_group)
    if override.is_delete() or override.value() is None:
        raise ConfigError(group, f"cannot be left out{near('none', known)}")
    for choice in _choices(override):
        if choice not in known:
            raise ConfigError(f"{group}={choice}", f"there is no such {group}{near(choice, known)}")


def _choices(override: Override) -> list[str]:
    """Of a group: one, or those that a sweep goes through."""
    value = override.value()
    if not isinstance(value, Glob):
        return list(override.sweep_string_iterator()) if override.is_sweep_override() else [str(value)]
    if not (found := value.filter(options(override.key_or_group))):
        raise ConfigError(override.key_or_group, f"nothing there is like {', '.join(value.include)}; there are: {', '.join(options(override.key_or_group))}")
    return found


def _first(override: Override) -> str:
    value = _choices(override)[0] if override.is_sweep_override() else override.get_value_element_as_str()
    return f"{override.get_key_element()}={value}"  # with its package: +lm@reward.reader=minilm


def _compose(overrides: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("config", overrides=overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError("configuration", " ".join(str(error).split())) from error
    finally:
        GlobalHydra.instance().clear()


def _check_key(config: DictConfig, path: str) -> None:
    node: Any = config
    for depth, key in enumerate(path.split(".")):
        place = ".".join(path.split(".")[:depth])
        if not OmegaConf.is_dict(node):
            if OmegaConf.is_list(node) and key.isdigit():
                return
            raise ConfigError(path, f"{place} is a value, not a group of settings")
        if key not in node.keys():  # noqa: SIM118  `in` says no to a key whose value is still missing (???)
            known = [str(name) for name in node if name != "hydra" and not str(name).startswith("_")]
            raise ConfigError(path, f"no such setting{near(key, known)}; to add one that is not there write +{path}=")
        node = node._get_node(key)


def _check_writable(path: Path) -> None:
    if "${" in str(path):
        return
    ancestor = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK):
        raise ConfigError("hydra.run.dir", f"{path} cannot be made: {ancestor} is {'not a directory' if not ancestor.is_dir() else 'not writable'}")


def _policy_settings(record: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every setting of a checkpoint's policy and reader, whoever chose it."""
    for group in ("policy", "lm", "adapter"):
        for key, value in (record.get("config", {}).get(group) or {}).items():
            if key != "_target_":
                yield f"{group}.{key}", value


_CARRIED = ("domain", "data", "algo", "policy", "lm", "adapter", "warm_start", "reward", "seed")


def _with_choices_of_checkpoint(arguments: list[str]) -> list[str]:
    """Puts the choices that a checkpoint was made with before the user's own.

    They are read as a command line, with all its checks; a target named in a checkpoint is refused.
    """
    given = dict(argument.split("=", 1) for argument in _overrides(arguments) if "=" in argument)
    where = given.get("checkpoint") or given.get("resume")
    if where in (None, "", "null"):
        return arguments
    _, record = open_checkpoint(Path(where))
    chosen = [] if given.get("resume") else [f"{name}={record[name]}" for name in _CARRIED[2:] if name in record]  # a preset may have chosen them
    carried = [str(choice) for choice in record.get("choices", [])]
    settings = [] if given.get("resume") else [f"++{key}={json.dumps(value)}" for key, value in _policy_settings(record)]
    taken = (*_CARRIED, *(("experiment", "preset", "tracker", "threads", "rollout") if given.get("resume") else ()))
    kept = [choice for choice in carried if re.split("[.@=]", choice.lstrip("+~"))[0] in taken]
    if any("_target_" in choice for choice in kept):
        raise UserError(f"{where}: names a _target_, which a checkpoint may not choose; give it on the command line if you trust it")
    own = _overrides(arguments)
    flags = [argument for argument in arguments if argument not in own]
    keys = {choice.split("=")[0] for choice in own}
    return [*flags, *(choice for choice in [*chosen, *kept, *settings] if choice.split("=")[0] not in keys), *own]
