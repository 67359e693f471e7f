"""Imports point one way: what each part may know of the others, read from the source itself; and no file runs what it reads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("framework", "domains", "experiments", "run")

# part -> what it may import of ours; a part is the longest name that a module's own begins with
MAY: dict[str, tuple[str, ...]] = {
    "framework.types": (),
    "framework.errors": (),
    "framework.seeding": (),
    "framework.losses": (),
    "framework.advantages": (),
    "framework.statistics": ("framework.types",),
    "framework.interfaces": ("framework.types", "framework.seeding", "framework.statistics"),
    "framework.oracles": ("framework.oracles", "framework.types"),
}
# part -> what it must never import, ours or anyone's; `*` stands for any name
NEVER: dict[str, tuple[str, ...]] = {
    "framework": ("domains", "experiments", "run", "conf"),
    "framework.types": ("gymnasium", "transformers", "stable_baselines3"),
    "framework.interfaces": ("transformers", "stable_baselines3", "hydra"),
    "framework.oracles": ("torch", "gymnasium", "transformers"),
    **{f"framework.{part}": tuple(f"framework.{other}" for other in ("policies", "rewards", "algorithms")) for part in ("lm", "datasets", "checkpoint")},
    **{f"framework.{part}": tuple(f"framework.{other}" for other in ("policies", "rewards", "algorithms", "lm")) for part in ("tracking", "config", "rollout")},
    "framework.policies": ("framework.algorithms", "framework.rewards", "stable_baselines3", "sb3_contrib"),
    "framework.rewards": ("framework.algorithms", "framework.policies", "stable_baselines3", "sb3_contrib"),
    "framework.algorithms": ("framework.policies", "framework.rewards", "framework.lm", "transformers"),
    "framework.worlds": tuple(f"framework.{part}" for part in ("policies", "rewards", "algorithms", "lm", "preferences", "reports")),
    "framework.preferences": tuple(f"framework.{part}" for part in ("policies", "rewards", "algorithms", "reports")),
    "framework.tuning": tuple(f"framework.{part}" for part in ("policies", "rewards", "worlds", "reports")),
    "domains": (
        *("torch", "transformers", "peft", "stable_baselines3", "hydra", "omegaconf", "conf", "experiments", "run", "framework*._*"),
        *(f"framework.{part}" for part in ("algorithms", "policies", "rewards", "lm", "cli", "assemble", "experiment", "checkpoint", "tracking", "reports")),
    ),
    "experiments": ("domains", "run", "conf"),
}
APART = ("framework.policies.*", "framework.rewards.*", "domains.*", "experiments.*")  # siblings that do not know each other
EVIL_MODULES = ("pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib")
EVIL_CALLS = ("eval", "exec", "torch.load", "yaml.load", "yaml.unsafe_load", "os.system", "os.popen")
EVIL_ARGUMENTS = ("trust_remote_code", "allow_pickle", "shell")


@cache
def sources() -> dict[str, ast.Module]:
    """Every module of ours by its dotted name."""
    files = [ROOT / "run.py", *(path for top in OURS[:3] for path in sorted((ROOT / top).rglob("*.py")))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in zip(names, files, strict=True)}


def imports(tree: ast.AST, module: str) -> Iterator[str]:
    """Everything imported anywhere in a module, lazily too, by its full dotted name: `from a.b import c` is a.b.c."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            yield from (".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and _name(node.func).endswith("import_module") and node.args and isinstance(node.args[0], ast.Constant):
            yield str(node.args[0].value)


def violations(tree: ast.AST, module: str) -> list[str]:
    """What a module imports against the rules."""
    parts = [part for part in {**NEVER, **MAY} if within(module, part)]
    never = {name for part in parts for name in NEVER.get(part, ())}
    may = next((MAY[part] for part in sorted(parts, key=len, reverse=True) if part in MAY), None)
    found = set()
    for imported in imports(tree, module):
        ours = imported.split(".")[0] in OURS
        beyond = may is not None and ours and not any(within(imported, allowed) for allowed in may)
        if beyond or any(within(imported, name) for name in never) or any(siblings(module, imported, pattern) for pattern in APART):
            found.add(f"{module} imports {imported}")
    return sorted(found)


def evils(tree: ast.AST, module: str) -> list[str]:
    """Ways in which a file could run what it was only to read."""
    found = [imported for imported in imports(tree, module) if imported.split(".")[0] in EVIL_MODULES]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            safe = any("Safe" in ast.unparse(word.value) for word in node.keywords)  # yaml.load(..., Loader=yaml.CSafeLoader)
            found += [_name(node.func)] if _name(node.func) in EVIL_CALLS and not safe else []
            found += [word.arg for word in node.keywords if word.arg in EVIL_ARGUMENTS and getattr(word.value, "value", True) is not False]
    return [f"{module}: {evil}" for evil in found]


def within(name: str, part: str) -> bool:
    """Whether a dotted name is a part or lies inside it."""
    return name == part or name.startswith(f"{part}.") or ("*" in part and fnmatch(name, part))


def siblings(module: str, imported: str, pattern: str) -> bool:
    """Whether one of a folder's members imports another of them."""
    depth = pattern.count(".") + 1
    own, other = (".".join(name.split(".")[:depth]) for name in (module, imported))
    return fnmatch(own, pattern) and fnmatch(other, pattern) and own != other and other in sources()


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def test_there_is_a_source_to_read() -> None:
    assert {"run", "framework.types", "framework.lm.lines", "domains.finance", "experiments.train"} <= sources().keys()


@pytest.mark.parametrize("module", sources())
def test_imports_point_one_way(module: str) -> None:
    assert not violations(sources()[module], module)


@pytest.mark.parametrize("module", sources())
def test_nothing_read_is_run(module: str) -> None:
    assert not evils(sources()[module], module)


def test_no_module_imports_itself_around_a_corner() -> None:
    known = sources()
    graph = {
        module: {next(name for name in (imported, imported.rpartition(".")[0]) if name in known) for imported in imports(tree, module) if _ours(imported)}
        for module, tree in known.items()
    }
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which shows the circle


def _ours(imported: str) -> bool:
    return imported in sources() or imported.rpartition(".")[0] in sources()


def test_the_command_line_is_checked_before_anything_heavy_is_imported() -> None:
    code = "import sys, framework.cli; print(*sorted({'torch', 'transformers', 'stable_baselines3', 'wandb'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("framework.types", "import framework.seeding"),
        ("framework.interfaces", "from framework import rollout"),
        ("framework.oracles.tree", "import torch.nn"),
        ("framework.oracles.tree", "from framework.rollout import Turn"),
        ("framework.lm.fresh", "def f():\n    from framework.policies.head import Head"),
        ("framework.policies.head", "from framework.policies.scripted import ReferencePolicy"),
        ("framework.policies.head", "from . import scripted"),
        ("framework.policies.head", "from framework.algorithms import sb3"),
        ("framework.algorithms.sb3", "from framework.policies.head import HeadPolicy"),
        ("framework.evaluation", "import importlib\nimportlib.import_module('domains.finance')"),
        ("domains.finance.desk", "from torch import nn"),
        ("domains.finance.desk", "import conf.domain"),
        ("domains.finance.desk", "from framework.config import _resolve"),
        ("experiments.train", "import domains.finance"),
        ("experiments.train", "from experiments.evaluate import Evaluate"),
    ],
)
def test_a_planted_import_is_noticed(module: str, source: str) -> None:
    assert violations(ast.parse(source), module)


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    import pickle",
        "from joblib import load",
        "eval('1')",
        "import torch\ntorch.load('x')",
        "f(trust_remote_code=True)",
        "numpy.load('x', allow_pickle=flag)",
        "subprocess.run('ls', shell=True)",
        "yaml.load(text, Loader=yaml.FullLoader)",
    ],
)
def test_a_planted_evil_is_noticed(source: str) -> None:
    assert evils(ast.parse(source), "framework.planted")
    assert not evils(ast.parse("network.eval()\nf(trust_remote_code=False)\nyaml.load(text, Loader=yaml.SafeLoader)"), "framework.planted")
