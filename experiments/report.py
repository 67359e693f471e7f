"""A table of finished runs, each row a mean over seeds: `experiment=report experiment.runs=DIR`."""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib
import yaml
from rich.console import Console
from rich.table import Table

from framework.errors import ConfigError
from framework.experiment import Experiment, Run, flat, write_json
from framework.statistics import bootstrap
from framework.types import Estimate

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_CHOICES = ("algo", "lm", "adapter", "warm_start", "reward")
_NO_PART_OF_A_RESULT = ("seed", "device", "threads", "checkpoint", "resume", "tracker", "experiment")
_SCORES = {"score": "score (test)", "score_known": "known wordings", "score_shift": "shifted world"}
_REFERENCES = {"random": ("#888888", ":"), "best_constant": ("#888888", "--"), "heuristic": ("#b8860b", "--"), "optimum": ("#1b7837", "-")}
_LEADS = {f"ahead_of_{rival}": rival for rival in ("heuristic", "best_constant")}
_NOTE = (
    "Mean [95 % bootstrap interval] over seeds; with few seeds such intervals are too narrow. A row of 1 seed has the interval over that run's episodes. "
    "Score: random acts 0, optimum 1; the test's wordings are never trained on. Intervals on recorded cases do not cover the choice of these cases."
)


@dataclass(frozen=True)
class Finished:
    """What the table needs of a run. Estimates are named `score...`, and `SPLIT` and `SPLIT/ahead_of_RIVAL` on recorded cases."""

    directory: Path
    world: str
    choices: Mapping[str, str]
    seed: int
    settings: Mapping[str, Any]  # flat; those that a result depends on
    estimates: Mapping[str, Estimate]
    references: Mapping[str, Mapping[str, Estimate]]
    env_steps: int
    wall_s: float


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    world: str
    policy: str
    estimates: Mapping[str, Estimate]
    runs: Sequence[Finished] = ()  # one a seed; none: a reference


class Report(Experiment):
    """Gathers runs and writes `table.md`, `table.json` and `table.png`.

    Args:
        runs: a directory, or several; every `summary.json` below them is read.
    """

    def __init__(self, runs: str | list[str] | None) -> None:
        self.runs = [Path(directory) for directory in ([runs] if isinstance(runs, str) else runs or [])]

    def run(self, run: Run) -> bool:
        """See `Experiment`."""
        sheets = list(_sheets(rows := table(self.runs)))
        write_json(run.directory / "table.json", [_plain(row) for row in rows])
        (run.directory / "table.md").write_text("\n".join([*map(_markdown, sheets), _NOTE, ""]), encoding="utf-8")
        _draw(rows, run.directory / "table.png")
        console = Console(width=110, markup=False, highlight=False)
        console.print(*map(_printable, sheets), sep="\n")
        console.print(f"{_NOTE}\ntable: {run.directory / 'table.md'}, table.json, table.png")
        return True


def table(directories: Sequence[Path]) -> list[Row]:
    """The rows: world by world, the references with the policies between them, the best last.

    Raises:
        ConfigError: there is nothing to read.
    """
    if not directories:
        raise ConfigError("experiment.runs", "experiment=report needs finished runs; give experiment.runs=DIR, a directory they are below")
    worlds: dict[str, list[Finished]] = defaultdict(list)
    for finished in _find(directories):
        worlds[finished.world].append(finished)
    return [row for world in sorted(worlds) for row in _of_world(world, worlds[world])]


def _find(directories: Sequence[Path]) -> list[Finished]:
    """All runs below some directories, the newest last; those that cannot be read are named and left out."""
    paths: dict[Path, float] = {}  # with the time of writing
    for directory in directories:
        below = {path.resolve(): path.stat().st_mtime for path in directory.rglob("summary.json")}
        if not below:
            raise ConfigError("experiment.runs", f"no summary.json below {directory}, so no finished run")
        paths |= below
    found = []
    for path in sorted(paths, key=lambda path: (paths[path], path)):
        try:
            found.append(_read(path))
        except (OSError, ValueError, LookupError, TypeError, ArithmeticError, yaml.YAMLError) as error:
            _warn(f"{path} is left out: it cannot be read ({type(error).__name__}: {error})")
    if not found:
        raise ConfigError("experiment.runs", f"no summary.json below {', '.join(map(str, directories))} can be read")
    return found


def _read(path: Path) -> Finished:
    summary, config = json.loads(path.read_text(encoding="utf-8")), path.with_name("config.yaml")
    settings = flat(yaml.safe_load(config.read_text(encoding="utf-8"))) if config.exists() else {}
    estimates = {name: _estimate(summary[name]) for name in _SCORES}
    references = {name: _scores_of_reference(summary, name) for name in _REFERENCES}
    for split, block in ((name, part) for name, part in summary.items() if isinstance(part, dict) and "rivals" in part):
        rivals = block["rivals"]
        estimates[split] = _estimate(block["return"])
        estimates |= {f"{split}/{lead}": _estimate(rivals[rival]["policy_ahead_by"]) for lead, rival in _LEADS.items()}
        for name in _REFERENCES:
            references[name][split] = _estimate(rivals[name]["return"])
    return Finished(
        path.parent,
        f"{summary['domain']}/{summary['environment']}",
        {group: str(summary.get(group, "gold") if group == "reward" else summary[group]) for group in _CHOICES},
        int(summary["seed"]),
        {key: value for key, value in settings.items() if key.split(".")[0] not in _NO_PART_OF_A_RESULT},
        estimates,
        references,
        int(summary["env_steps"]),
        float(summary["wall_s"]),
    )


def _estimate(record: Mapping[str, float]) -> Estimate:
    estimate = Estimate(*(float(record[key]) for key in ("mean", "low", "high")))
    if not all(math.isfinite(value) for value in asdict(estimate).values()):
        raise ValueError(f"{estimate} is no estimate")
    return estimate


def _scores_of_reference(summary: Mapping[str, Any], name: str) -> dict[str, Estimate]:
    scores = {}
    for kind in _SCORES:
        values = summary["references_shift" if kind == "score_shift" else "references"]
        share = (values[name] - values["random"]) / (values["optimum"] - values["random"])
        scores[kind] = Estimate(share, share, share)
    return scores


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _of_world(world: str, runs: Sequence[Finished]) -> list[Row]:
    """References of the newest run, and the policies by their score."""
    latest = runs[-1].references
    for name in _REFERENCES:
        if not all(math.isclose(run.references[name]["score"].mean, latest[name]["score"].mean, abs_tol=1e-6) for run in runs):
            _warn(f"{world}: {name} is not worth the same in all runs, so their worlds differ; the references shown are those of {runs[-1].directory}")
    references = [Row(world, name.replace("_", " "), latest[name]) for name in _REFERENCES]
    policies = [Row(world, policy, _over_seeds(members), members) for policy, members in _groups(runs).items()]
    return [*references[:-1], *sorted(policies, key=lambda row: row.estimates["score"].mean), references[-1]]


def _groups(runs: Sequence[Finished]) -> dict[str, list[Finished]]:
    """Runs that differ in nothing but their seed, under the name of what they are."""
    chosen: dict[tuple[str, ...], list[Finished]] = defaultdict(list)
    for run in runs:
        chosen[tuple(run.choices.values())].append(run)
    groups: dict[str, dict[int, Finished]] = defaultdict(dict)
    for members in chosen.values():
        keys = sorted({key for run in members for key in run.settings})
        varied = [key for key in keys if len({repr(run.settings[key]) for run in members if key in run.settings}) > 1]
        for run in members:
            group = groups[_policy(run, varied)]
            if run.seed in group:  # evaluated again, or trained again: the same seed twice is not two seeds
                _warn(f"{group[run.seed].directory} is left out: {run.directory} is newer, with the same settings and seed")
            group[run.seed] = run
    return {policy: [group[seed] for seed in sorted(group)] for policy, group in groups.items()}


def _policy(run: Finished, varied: Sequence[str]) -> str:
    """What was trained: the choices, and the settings in which runs of the same choices differ."""
    algo, lm, adapter, warm_start, reward = run.choices.values()
    parts = [algo, f"lm={lm}" if adapter == "none" else f"lm={lm} ({adapter})", "no warm start" if warm_start == "none" else warm_start]
    parts += [f"reward={reward}"] if reward != "gold" else []
    return ", ".join([*parts, *(f"{key}={run.settings[key]}" for key in varied if key in run.settings)])


def _over_seeds(runs: Sequence[Finished]) -> dict[str, Estimate]:
    if len(runs) == 1:
        return dict(runs[0].estimates)
    shared = [name for name in runs[0].estimates if all(name in run.estimates for run in runs)]
    return {name: bootstrap([run.estimates[name].mean for run in runs]) for name in shared}


@dataclass(frozen=True)
class _Sheet:
    """A table as people read it."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence[str]]


def _sheets(rows: Sequence[Row]) -> Iterator[_Sheet]:
    for world in dict.fromkeys(row.world for row in rows):
        here = [row for row in rows if row.world == world]
        scores = [[row.policy, _seeds(row), *(_cell(row, name) for name in _SCORES), *_effort(row)] for row in here]
        yield _Sheet(world, ["policy", "seeds", *_SCORES.values(), "steps", "time"], scores)
        for split in (name for name in here[0].estimates if name not in _SCORES):
            names = [split, *(f"{split}/{lead}" for lead in _LEADS)]
            outcomes = [[row.policy, _seeds(row), *(_cell(row, name) for name in names)] for row in here]
            columns = ["policy", "seeds", "mean outcome", *(lead.replace("_", " ") for lead in _LEADS)]
            yield _Sheet(f"{world}: recorded cases ({split}), scored by what truly happened", columns, outcomes)


def _seeds(row: Row) -> str:
    return f"{len(row.runs)} seed{'' if len(row.runs) == 1 else 's'}" if row.runs else ""


def _cell(row: Row, name: str) -> str:
    if (estimate := row.estimates.get(name)) is None:
        return ""
    return str(estimate) if row.runs or estimate.low < estimate.high else f"{estimate.mean:.3f}"  # what is known exactly has no interval


def _effort(row: Row) -> list[str]:
    return [f"{mean(run.env_steps for run in row.runs):,.0f}", f"{mean(run.wall_s for run in row.runs):,.0f} s"] if row.runs else ["", ""]


def _markdown(sheet: _Sheet) -> str:
    head = [sheet.columns, [":--", *("--:" for _ in sheet.columns[1:])]]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in [*head, *sheet.lines]]
    return "\n".join([f"**{sheet.title}**", "", *lines, ""])


def _printable(sheet: _Sheet) -> Table:
    printable = Table(title=sheet.title, title_justify="left")
    for column in sheet.columns:
        printable.add_column(column, justify="left" if column == "policy" else "right")
    for line in sheet.lines:
        printable.add_row(line[0], *(cell.replace(" [", "\n[") for cell in line[1:]), style="bold" if line[1] else None)
    return printable


def _plain(row: Row) -> dict[str, Any]:
    return {
        "world": row.world,
        "policy": row.policy,
        **(row.runs[0].choices if row.runs else {}),
        "runs": [{"directory": str(run.directory), "seed": run.seed, "env_steps": run.env_steps, "wall_s": run.wall_s} for run in row.runs],
        **{name: asdict(estimate) for name, estimate in row.estimates.items()},
    }


def _draw(rows: Sequence[Row], path: Path) -> None:
    """Dots and intervals: the score of every policy between the references, a panel for each world."""
    worlds = [[row for row in rows if row.world == world] for world in dict.fromkeys(row.world for row in rows)]
    heights = [1.5 + 0.45 * sum(bool(row.runs) for row in here) for here in worlds]
    figure, panels = plt.subplots(len(worlds), figsize=(8.5, sum(heights)), height_ratios=heights, layout="constrained", squeeze=False)
    for axes, here in zip(panels[:, 0], worlds, strict=True):
        _panel(axes, here)
    panels[-1, 0].set_xlabel("share of the optimum (random acts 0, optimum 1), 95 % interval")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower right", ncols=2, fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _panel(axes: Axes, rows: Sequence[Row]) -> None:
    policies = [row for row in rows if row.runs]
    for kind, label, shift, fill in (("score", "unseen wordings (test)", 0.1, "#2166ac"), ("score_known", "known wordings", -0.1, "white")):
        found = [row.estimates[kind] for row in policies]
        means, heights = [e.mean for e in found], [number + shift for number in range(len(found))]
        # a resampled interval need not hold its own mean, and matplotlib takes no negative length
        reach = [[max(0.0, e.mean - e.low) for e in found], [max(0.0, e.high - e.mean) for e in found]]
        axes.errorbar(means, heights, xerr=reach, fmt="o", markersize=5, color="#2166ac", markerfacecolor=fill, capsize=2, linewidth=1.2, label=label)
    for name, (colour, style) in _REFERENCES.items():
        value = next(row for row in rows if row.policy == name.replace("_", " ")).estimates["score"].mean
        axes.axvline(value, color=colour, linestyle=style, linewidth=1, zorder=0)
        axes.annotate(name.replace("_", " "), (value, 1.01), xycoords=("data", "axes fraction"), rotation=30, ha="left", va="bottom", fontsize=8, color=colour)
    axes.set_yticks(range(len(policies)), [f"{row.policy}\n{_seeds(row)}" for row in policies], fontsize=8)
    axes.set_ylim(-0.6, len(policies) - 0.4)
    axes.set_title(rows[0].world, fontsize=10, loc="left", pad=30)
    axes.grid(axis="x", alpha=0.2)
