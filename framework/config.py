"""From YAML to parts: names are looked up, settings are checked against the constructor, and mistakes get an answer.

The constructor is the schema. `build` turns a node `{_target_: package.module.Class, key: value, ...}` into an object after
checking its keys, types and ranges against the constructor's annotations; nothing is declared twice. A target must live in one
of our packages or in an installed plug-in, and no configuration found in a checkpoint is ever built.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import types
import typing
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from framework.errors import ConfigError, near


def _no_truth_value(value: Any) -> Any:
    """Python takes `true` for 1; a person who writes it for a number has mistaken the setting."""
    if isinstance(value, bool):
        raise ValueError("input should be a number")
    return value


_Number = BeforeValidator(_no_truth_value)
Positive = Annotated[float, _Number, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, _Number, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, _Number, Field(ge=0, le=1)]
Count = Annotated[int, _Number, Field(ge=1)]
NonNegativeCount = Annotated[int, _Number, Field(ge=0)]

CONF = Path(__file__).resolve().parent.parent / "conf"
ENTRY_POINT = "touchstone.domains"


@cache
def plugins() -> tuple[EntryPoint, ...]:
    """Domain packages that other distributions have registered."""
    return tuple(sorted(entry_points(group=ENTRY_POINT), key=lambda point: point.name))


def build(node: Mapping[str, Any], place: str, **parts: Any) -> Any:
    """Makes the object that a node describes.

    Args:
        node: settings with a `_target_`.
        place: where the node stands, for messages (`algo`).
        parts: constructor arguments that are not settings (other parts).

    Raises:
        ConfigError: unknown target, unknown or missing key, wrong type or range; names the key and a near one.
    """
    target, arguments = check(node, place, parts)
    try:
        return target(**arguments, **parts)
    except ValueError as error:
        raise ConfigError(place, str(error)) from error


def check(node: Mapping[str, Any], place: str, parts: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
    """Everything `build` checks before it calls the constructor; returns the class and its validated arguments."""
    node = to_dict(node)
    if "_target_" not in node:
        raise ConfigError(place, "has no _target_, so nothing can be built from it")
    target = resolve(str(node["_target_"]), f"{place}._target_")
    return target, _arguments(target, {key: value for key, value in node.items() if key != "_target_"}, place, parts or {})


def check_record(kind: Any, settings: Mapping[str, Any], place: str) -> Any:
    """A record (dataclass) from settings, checked like any part."""
    try:
        return kind(**_arguments(kind, to_dict(settings), place, {}))
    except ValueError as error:
        raise ConfigError(place, str(error)) from error


def to_dict(node: Mapping[str, Any]) -> dict[str, Any]:
    """A plain dictionary with all references resolved."""
    if isinstance(node, DictConfig):
        try:
            return typing.cast(dict[str, Any], OmegaConf.to_container(node, resolve=True, throw_on_missing=True))
        except MissingMandatoryValue as error:
            raise ConfigError(str(error.full_key), f"must be given: {error.full_key}=...") from error
        except OmegaConfBaseException as error:
            raise ConfigError(str(error.full_key or "configuration"), str(error).splitlines()[0]) from error
    return dict(node)


def _arguments(target: Any, settings: dict[str, Any], place: str, parts: Mapping[str, Any]) -> dict[str, Any]:
    parameters = dict(inspect.signature(target).parameters)
    plain_class = isinstance(target, type) and not dataclasses.is_dataclass(target)
    constructor = typing.cast(Any, target).__init__ if plain_class else target
    hints = typing.get_type_hints(constructor, include_extras=True)
    for name, part in parts.items():
        if name not in parameters:
            raise ConfigError(place, f"{target.__name__} takes no {name}; choose another {place} or leave the {name} out")
        kinds = _kinds(hints.get(name, Any))
        if kinds and not isinstance(part, tuple(kinds)):
            wanted = " or ".join(kind.__name__ for kind in kinds if kind is not type(None))
            raise ConfigError(name, f"{type(part).__name__} does not go with {target.__name__}, which takes {wanted}; choose another {name} or another {place}")
        del parameters[name]
    for key in settings:
        if key not in parameters:
            raise ConfigError(f"{place}.{key}", f"{target.__name__} has no such setting{near(key, parameters)}")
    for name, parameter in parameters.items():
        if name not in settings and parameter.default is inspect.Parameter.empty:
            raise ConfigError(f"{place}.{name}", f"is missing; {target.__name__} needs it")
    return {key: _value(hints.get(key, Any), value, f"{place}.{key}") for key, value in settings.items()}


def _kinds(hint: Any) -> list[type]:
    """The classes that an annotation allows; none where it allows anything."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [kind for choice in typing.get_args(hint) for kind in _kinds(choice)]
    kind = typing.get_origin(hint) or hint
    return [kind] if isinstance(kind, type) and kind is not Any else []


def _value(hint: Any, value: Any, place: str) -> Any:
    """`value` as the annotation wants it; records are built from mappings, nested nodes from their target."""
    if isinstance(value, Mapping) and "_target_" in value:
        return build(value, place)
    if isinstance(value, Mapping) and any(isinstance(part, Mapping) and "_target_" in part for part in value.values()):
        value = {name: _value(Any, part, f"{place}.{name}") for name, part in value.items()}
    if isinstance(value, Mapping) and dataclasses.is_dataclass(hint):
        return check_record(hint, value, place)
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        first = max(error.errors(include_url=False), key=lambda told: len(told["loc"]))  # of several kinds that would do, the one that was meant
        inner = "".join(f".{part}" for part in first["loc"] if not str(part).startswith(("function", "dict[")))
        told = first["msg"].removeprefix("Value error, ")
        raise ConfigError(place + inner, f"{told[0].lower() + told[1:]}, not {first['input']!r}") from error


def resolve(path: str, place: str) -> Any:
    """The class or function at a dotted path inside an allowed package.

    Raises:
        ConfigError: there is none, or the package is not allowed.
    """
    allowed = {"framework", "domains", "experiments"} | {point.module.split(".")[0] for point in plugins()}
    module, _, name = path.rpartition(".")
    if path.split(".")[0] not in allowed:
        raise ConfigError(place, f"{path!r} is outside the packages that may be built from: {', '.join(sorted(allowed))}")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name and not module.startswith(error.name):
            raise
        raise ConfigError(place, f"no module {module!r}") from error
    except AttributeError as error:
        raise ConfigError(place, f"{module} has no {name!r}{near(name, _own_names(module))}") from error


def _own_names(module: str) -> list[str]:
    """What a module itself defines."""
    return [name for name, value in vars(importlib.import_module(module)).items() if getattr(value, "__module__", None) == module]


def build_domain(node: Mapping[str, Any]) -> Any:
    """The world that `domain.environment` names."""
    node = to_dict(node)
    worlds, environment = node["worlds"], node["environment"]
    if environment not in worlds:
        raise ConfigError("domain.environment", f"{node['name']} has no world {environment!r}{near(str(environment), worlds)}")
    domain = build(worlds[environment], f"domain.worlds.{environment}")
    domain.rehearsal = _value(bool, node.get("rehearsal", False), "domain.rehearsal")
    return domain


def load_domain(name: str, environment: str) -> Any:
    """A world with the settings of its YAML file, for use without a command line (`gymnasium.make`)."""
    for folder in config_folders():
        path = folder / "domain" / f"{name}.yaml"
        if path.exists():
            return build_domain({**to_dict(typing.cast(DictConfig, OmegaConf.load(path))), "environment": environment})
    raise ConfigError("domain", f"no domain {name!r}{near(name, options('domain'))}")


def config_folders() -> list[Path]:
    """Our configuration folder and those of the plug-ins that have one."""
    folders = [CONF]
    for point in plugins():
        spec = importlib.util.find_spec(point.module.split(".")[0])  # nothing is imported for it
        if spec and spec.origin:
            folders.append(Path(spec.origin).parent / "conf")
    return [folder for folder in folders if folder.is_dir()]


def fitting(group: str, kind: type) -> list[str]:
    """What can be typed after `group=` to get a part of a kind."""
    targets = {name: _target(group, name) for name in options(group)}
    return [name for name, target in targets.items() if target and issubclass(resolve(target, group), kind)]


def _target(group: str, name: str) -> str | None:
    """What an option builds: its own target, or that of the option it begins from."""
    path = next(path for folder in config_folders() if (path := folder / group / f"{name}.yaml").exists())
    node = typing.cast(DictConfig, OmegaConf.load(path))
    begun = [_target(group, first) for first in node.get("defaults", ()) if isinstance(first, str) and first != "_self_"]
    return node.get("_target_") or next(iter(begun), None)


def options(group: str) -> list[str]:
    """What can be typed after `group=`."""
    return sorted({path.stem for folder in config_folders() for path in (folder / group).glob("*.yaml")})


def flat(config: Any, place: str = "") -> dict[str, Any]:
    """Every single setting of a configuration by its dotted path."""
    if not isinstance(config, Mapping):
        return {place: config}
    return {key: value for name, part in config.items() for key, value in flat(part, f"{place}.{name}".lstrip(".")).items()}


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """The first settings in which what is kept somewhere differs from what was asked for here, with both values; empty where none does."""
    differing = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    return "; ".join(f"{key} is {theirs.get(key)!r} there and {ours.get(key)!r} here" for key in differing[:5])
