"""Tables of finished runs as people read them: on the screen, in Markdown, as a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from statistics import mean, median
from textwrap import fill

import matplotlib
from rich.table import Table

from framework.reports.tables.finished import COST, LEADS, SCORES, SPLITS_TOLD, VALIDATION_LOSS, WITHIN, WON, Row, main_score
from framework.statistics import bootstrap
from framework.types import Estimate

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

NOTE = (
    "Mean [95 % bootstrap interval] over seeds; with few seeds such intervals are too narrow. A row of 1 seed has the interval over that run's own "
    "episodes or rows. Score: random acts 0, optimum 1 (expert 1, where no optimum is known); the test's wordings are never "
    "trained on. Intervals on recorded cases do not cover the choice of these cases."
)
_BOTH = ("score_known", "score")
_LABEL = 36  # characters of a line beside the picture
_OF_REWARD = ("reward", "algo.kl_coef")  # gold needs no tether
_STYLES = {"random": ("#888888", ":"), "best constant": ("#888888", "--"), "heuristic": ("#b8860b", "--")}
_STYLES |= dict.fromkeys(("optimum", "expert"), ("#1b7837", "-"))


@dataclass(frozen=True)
class Sheet:
    """A table as people read it."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """For a README."""
        head = [self.columns, [":--", *("--:" for _ in self.columns[1:])]]
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in [*head, *self.lines]]
        return "\n".join([f"**{self.title}**", "", *lines, ""])

    def printable(self) -> Table:
        """For the screen."""
        printable = Table(title=self.title, title_justify="left")
        for number, column in enumerate(self.columns):
            printable.add_column(column, justify="right" if number else "left")
        for line in self.lines:
            printable.add_row(line[0], *(cell.replace(" [", "\n[") for cell in line[1:]), style="bold" if line[1] else None)
        return printable


def sheets(rows: Sequence[Row]) -> Iterator[Sheet]:
    """Worlds side by side where there are several, then tables for each world or data source."""
    yield from _side_by_side(rows)
    for subject in dict.fromkeys(row.subject for row in rows):
        here = [row for row in rows if row.subject == subject]
        first = next(row for row in here if row.runs)
        if first.runs[0].tuned:
            yield _of_models(subject, here, list(first.estimates))
            continue
        told = SCORES | ({WON: WON} if any(WON in row.estimates for row in here) else {})
        scores = [[row.name, seeds_of(row), *(_cell(row, name) for name in told), *_effort(row)] for row in here]
        yield Sheet(subject, ["policy", "seeds", *told.values(), "steps", "time"], scores)
        yield from _costs(subject, here)
        yield from _within_limits(subject, here)
        yield from _differences(subject, here)
        yield from _gains(subject, here)
        yield from _signals(subject, here)
        for split in dict.fromkeys(name.split("/")[0] for name in first.estimates if name.endswith(tuple(LEADS))):
            names = [split, *(f"{split}/{lead}" for lead in LEADS)]
            outcomes = [[row.name, seeds_of(row), *(_cell(row, name) for name in names)] for row in here]
            columns = ["policy", "seeds", "mean outcome", *(lead.replace("_", " ") for lead in LEADS)]
            yield Sheet(f"{subject}: recorded cases ({split}), scored by what truly happened", columns, outcomes)


def _side_by_side(rows: Sequence[Row]) -> Iterator[Sheet]:
    """A line for each world, a column for each policy that was trained in several of them and for what it is compared with; a sheet for each score."""
    worlds: dict[str, dict[str, Row]] = {}
    for row in rows:
        worlds.setdefault(row.subject, {})[row.name] = row
    worlds = {world: here for world, here in worlds.items() if not any(row.runs and row.runs[0].tuned for row in here.values())}
    shared = Counter(name for here in worlds.values() for name in here)
    names = [name for name, count in shared.items() if count > 1]
    trained = sorted((name for name in names if any(here[name].runs for here in worlds.values() if name in here)), key=_mean_score(worlds))
    if not trained:
        return
    last = [name for name in names if name in ("optimum", "expert")]
    columns = [*(name for name in names if name not in (*trained, *last)), *trained, *last]
    for score, told in SCORES.items():
        lines = [[world, *(_cell(here[name], score) if name in here else "" for name in columns)] for world, here in worlds.items()]
        yield Sheet(f"{len(worlds)} worlds: {told}", ["world", *(_with_seeds(name, worlds) for name in columns)], lines)


def _with_seeds(name: str, worlds: Mapping[str, Mapping[str, Row]]) -> str:
    """A policy's name, and over how many seeds it was trained in each world."""
    counts = sorted({len(here[name].runs) for here in worlds.values() if name in here})
    if counts == [0]:
        return name
    return f"{name} ({'' if counts[0] == counts[-1] else f'{counts[0]} to '}{counts[-1]} seed{'' if counts == [1] else 's'})"


def _mean_score(worlds: Mapping[str, Mapping[str, Row]]) -> Callable[[str], float]:
    return lambda name: mean(here[name].estimates["score"].mean for here in worlds.values() if name in here)


def _costs(world: str, rows: Sequence[Row]) -> Iterator[Sheet]:
    """Violations of each safety cost, beside its limit."""
    names = list(dict.fromkeys(name for row in rows for name in row.estimates if name.startswith(COST)))
    if names:
        lines = [[row.name, seeds_of(row), *(_cell(row, name) for name in names)] for row in rows]
        yield Sheet(f"{world}: safety costs an episode, unseen wordings", ["policy", "seeds", *(name.removeprefix(COST) for name in names)], lines)


def _within_limits(world: str, rows: Sequence[Row]) -> Iterator[Sheet]:
    """What runs that were to keep cost limits earned of the most that can be earned within them, and what they cost; one sheet for each set of limits."""
    names = {row.name: tuple(name for name in row.estimates if name.startswith(WITHIN)) for row in rows}
    for columns in dict.fromkeys(filter(None, names.values())):
        lines = [[row.name, seeds_of(row), *(_cell(row, name) for name in columns)] for row in rows if names[row.name] == columns]
        yield Sheet(f"{world}: within cost limits (constrained optimum 1)", ["policy", "seeds", *(name.removeprefix(WITHIN) for name in columns)], lines)


def _differences(world: str, rows: Sequence[Row]) -> Iterator[Sheet]:
    """What it is worth to change a setting: the score less that of the same seed without the change."""
    for plain in rows:
        lines = []
        for row in (row for row in rows if row.plain == plain.name):
            base = {run.seed: run for run in plain.runs}
            pairs = [(run, base[run.seed]) for run in row.runs if run.seed in base]
            if pairs:
                gains = (bootstrap([run.estimates[name].mean - other.estimates[name].mean for run, other in pairs]) for name in _BOTH)
                lines.append([row.short, f"{len(pairs)}", *map(shown, gains)])
        if lines:
            yield Sheet(f"{world}: {plain.name}, with settings changed", ["setting", "seeds in common", *(SCORES[name] for name in _BOTH)], lines)


def _gains(world: str, rows: Sequence[Row]) -> Iterator[Sheet]:
    """How much of the gold that learning from gold wins is won by learning from another reward, all else being equal, by the end of a run."""
    known = [row for row in rows if row.runs and all(run.curve for run in row.runs)]
    golds = {_apart_from_reward(row): row for row in known if _pays_gold(row)}
    lines = []
    for row in known:
        gold = None if _pays_gold(row) else golds.get(_apart_from_reward(row))
        if gold is None:
            continue
        possible = mean(run.curve[-1] - run.curve[0] for run in gold.runs)
        points = [mean(point(run.curve) for run in row.runs) for point in (itemgetter(0), itemgetter(-1), max)]
        share = shown(bootstrap([(run.curve[-1] - run.curve[0]) / possible for run in row.runs])) if possible > 0 else "nothing was won by gold"
        lines.append([row.name, seeds_of(row), *(f"{point:.3f}" for point in points), f"{possible:.3f} ({seeds_of(gold)})", share])
    if lines:
        columns = ["policy", "seeds", "gold at the start", "at the end", "at its height", "gain by gold", "share of it"]
        yield Sheet(f"{world}: gold won by another reward, validation split", columns, lines)


def _pays_gold(row: Row) -> bool:
    return row.runs[0].choices.get("reward") == "gold"


def _apart_from_reward(row: Row) -> tuple[object, ...]:
    run = row.runs[0]
    choices = [value for name, value in run.choices.items() if name != "reward"]
    return *choices, *sorted((name, repr(value)) for name, value in run.settings.items() if not name.startswith(_OF_REWARD))


def _signals(world: str, rows: Sequence[Row]) -> Iterator[Sheet]:
    """How often each signal gave warning where a reward was exploited, how early, and how often where none was."""
    ledgers = [run.climbed for row in rows for run in row.runs if run.climbed and "warned" in run.climbed]
    exploited, honest = ([found for found in ledgers if bool(found["exploited"]) is wanted] for wanted in (True, False))
    lines = []
    for name in dict.fromkeys(name for found in ledgers for name in found["warned"]):
        leads = [found["exploited"]["onset"] - step for found in exploited if (step := found["warned"].get(name)) is not None]
        hits, alarms = (_spoken([found["warned"][name] for found in some if name in found["warned"]]) for some in (exploited, honest))
        lines.append([name, hits, f"{median(leads):,.0f} ({min(leads):,.0f} to {max(leads):,.0f})" if leads else "", alarms])
    if lines:
        columns = ["signal", "warned of an exploit", "steps before gold was seen to fall", "warned of none"]
        yield Sheet(f"{world}: signals while another reward than gold was climbed", columns, lines)


def _spoken(steps: Sequence[int | None]) -> str:
    return f"{sum(step is not None for step in steps)} of {len(steps)}"


def _of_models(data: str, rows: Sequence[Row], names: Sequence[str]) -> Sheet:
    """Answers to the test split; where several settings were tried, the one with the lowest validation loss is the one chosen."""
    tried = [row for row in rows if row.runs]
    best = min(tried, key=lambda row: row.estimates[VALIDATION_LOSS].mean)
    lines = []
    for row in rows:
        chosen = " (lowest validation loss)" if row is best and len(tried) > 1 else ""
        lines.append([row.name + chosen, seeds_of(row), *(_cell(row, name) for name in names), *_effort(row)])
    return Sheet(f"{data}: answers to the test split", ["model", "seeds", *(name.replace("_", " ") for name in names), "updates", "time"], lines)


def seeds_of(row: Row) -> str:
    """Over how many seeds a row is; nothing for what was not trained."""
    return f"{len(row.runs)} seed{'' if len(row.runs) == 1 else 's'}" if row.runs else ""


def _cell(row: Row, name: str) -> str:
    if (estimate := row.estimates.get(name)) is None:
        return ""
    return shown(estimate)


def shown(estimate: Estimate) -> str:
    """A cell; what is known exactly has no interval."""
    return str(estimate) if estimate.low < estimate.high else f"{estimate.mean:.3f}"


def _effort(row: Row) -> list[str]:
    return [f"{mean(run.effort for run in row.runs):,.0f}", f"{mean(run.wall_s for run in row.runs):,.0f} s"] if row.runs else ["", ""]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Dots and intervals: what every run is worth beside what it is compared with, a panel for each world or data source."""
    subjects = [[row for row in rows if row.subject == subject] for subject in dict.fromkeys(row.subject for row in rows)]
    heights = [1.7 + sum(0.15 + 0.15 * len(_label(row).split("\n")) for row in here if row.runs) for here in subjects]
    figure, panels = plt.subplots(len(subjects), figsize=(8.5, sum(heights)), height_ratios=heights, layout="constrained", squeeze=False)
    for axes, here in zip(panels[:, 0], subjects, strict=True):
        _panel(axes, here)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _panel(axes: Axes, rows: Sequence[Row]) -> None:
    found, counts = [row for row in rows if row.runs], main_score(rows)
    best = "expert" if any(row.name == "expert" for row in rows) else "optimum"
    kinds = [(counts, counts.replace("_", " "), 0.0, "#2166ac")]
    if not found[0].runs[0].tuned:
        unseen, known = SPLITS_TOLD[best == "optimum"]
        kinds = [("score", f"{unseen} (test)", 0.1, "#2166ac"), ("score_known", known, -0.1, "white")]
    for kind, label, shift, inside in kinds:
        estimates = [row.estimates[kind] for row in found]
        means, heights = [e.mean for e in estimates], [number + shift for number in range(len(found))]
        # a resampled interval need not hold its own mean, and matplotlib takes no negative length
        reach = [[max(0.0, e.mean - e.low) for e in estimates], [max(0.0, e.high - e.mean) for e in estimates]]
        axes.errorbar(means, heights, xerr=reach, fmt="o", markersize=5, color="#2166ac", markerfacecolor=inside, capsize=2, linewidth=1.2, label=label)
    for value, names in _by_value(rows, counts).items():
        colour, style = _STYLES.get(names[0], ("#888888", "--"))
        axes.axvline(value, color=colour, linestyle=style, linewidth=1, zorder=0)
        place = (value, 1.01)
        axes.annotate(", ".join(names), place, xycoords=("data", "axes fraction"), rotation=30, ha="left", va="bottom", fontsize=8, color=colour)
    axes.set_yticks(range(len(found)), [_label(row) for row in found], fontsize=8)
    axes.set_ylim(-0.6, len(found) - 0.4)
    axes.set_title(rows[0].subject, fontsize=10, loc="right", pad=46)
    told = counts.replace("_", " ") if len(kinds) == 1 else f"share of the {best} (random acts 0, {best} 1)"
    axes.set_xlabel(f"{told}, 95 % interval", fontsize=8)
    axes.grid(axis="x", alpha=0.2)
    if len(kinds) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7, frameon=False)


def _label(row: Row) -> str:
    """A row's name in lines that leave room for the picture."""
    return f"{fill(row.short, _LABEL, break_long_words=False, break_on_hyphens=False)}\n{seeds_of(row)}"


def _by_value(rows: Sequence[Row], counts: str) -> dict[float, list[str]]:
    """What is compared with, by its worth: lines on top of one another have one label."""
    found: dict[float, list[str]] = {}
    for row in rows:
        if not row.runs and counts in row.estimates:
            found.setdefault(round(row.estimates[counts].mean, 3), []).append(row.name)
    return found
