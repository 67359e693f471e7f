"""Finished runs found on disk, and runs that differ in nothing but their seed put together."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from framework.config import flat
from framework.errors import ConfigError
from framework.experiment import world_of
from framework.statistics import bootstrap
from framework.types import Estimate

CHOICES = ("algo", "lm", "adapter", "warm_start", "reward")
SCORES = {"score": "score (test)", "score_known": "known wordings", "score_shift": "shifted world"}
"""What a policy is worth in a world; a language model on data has the scores of that data instead."""
SPLITS_TOLD = {True: ("unseen wordings", "known wordings"), False: ("unseen episodes", "validation episodes")}
"""What the splits `test` and `validation` are, where the optimum is known and where it is not."""
REFERENCES = ("random", "best_constant", "heuristic", "optimum", "expert")
LEADS = {f"ahead_of_{rival}": rival for rival in ("heuristic", "best_constant")}
WON = "won by learning"
"""The name of what a policy won since learning began, in known wordings, as a share of the optimum's lead over random acts."""
WITHIN = "within limits: "
"""Before the name of what is said of runs that were to keep cost limits: the share of the constrained optimum, and costs."""
COST = "cost: "
"""Before the name of a safety cost and its limit: violations an episode in unseen wordings."""
VALIDATION_LOSS = "validation loss"
_PLACES = ("reward.path", "data.path", "lm.path")
"""Of a fitted reward, of pairs that were judged for it, or of lessons that runs go on from: each seed may have its own."""
_NO_PART_OF_A_RESULT = ("seed", "device", "threads", "checkpoint", "resume", "tracker", "experiment", "rollout")


@dataclass(frozen=True)
class Finished:
    """What a table needs of a run. Estimates are named as its columns; on recorded cases of a world `SPLIT` and `SPLIT/ahead_of_RIVAL`."""

    directory: Path
    subject: str  # a world, or data
    choices: Mapping[str, str]
    seed: int
    settings: Mapping[str, Any]  # flat; those that a result depends on
    estimates: Mapping[str, Estimate]
    others: Mapping[str, Mapping[str, Estimate]]  # what it is compared with, the least first
    effort: int  # environment steps, or updates
    wall_s: float
    tuned: bool  # a language model on data; otherwise a policy in a world
    climbed: Mapping[str, Any] | None  # what its ledger says, where it learnt from another reward than gold
    curve: Sequence[float]  # gold return on the validation split, from before the algorithm began to after it ended


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    subject: str
    name: str
    estimates: Mapping[str, Estimate]
    runs: Sequence[Finished] = ()  # one a seed; none: something to compare with
    plain: str = ""  # the name of the row from which it differs in few settings, where most that were chosen alike are like that one

    @property
    def short(self) -> str:
        """Its name, or what sets it apart from the row that it is like."""
        return self.name.removeprefix(f"{self.plain}, ") if self.plain else self.name


def rows(directories: Sequence[Path]) -> list[Row]:
    """Subject by subject, what is compared with first, then the runs from the least to the best; a world's optimum (or expert) is last.

    Raises:
        ConfigError: there is nothing to read.
    """
    if not directories:
        raise ConfigError("experiment.runs", "experiment=report needs finished runs; give experiment.runs=DIR, a directory they are below")
    subjects: dict[str, list[Finished]] = defaultdict(list)
    for finished in _find(directories):
        subjects[finished.subject].append(finished)
    return [row for subject in sorted(subjects) for row in _of_subject(subject, subjects[subject])]


def main_score(rows: Sequence[Row]) -> str:
    """The name of the estimate that counts in the rows of a subject."""
    return next(iter(next(row for row in rows if row.runs).estimates))


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
    if "policy" in summary and settings.pop("policy._target_", None):
        settings["policy"] = summary["policy"]  # by the name under which it is chosen
    tuned = "tuned" in summary
    estimates, others = _of_model(summary) if tuned else _of_policy(summary)
    return Finished(
        path.parent,
        str(summary["data"]) if tuned else world_of(summary),
        {group: str(summary.get(group, "gold") if group == "reward" else summary[group]) for group in CHOICES if not tuned or group in summary},
        int(summary["seed"]),
        {key: value for key, value in settings.items() if key.split(".")[0] not in _NO_PART_OF_A_RESULT},
        estimates,
        others,
        int(summary["updates" if tuned else "env_steps"]),
        float(summary["wall_s"]),
        tuned,
        summary.get("climbed"),
        [] if tuned else [float(estimate["mean"]) for _, estimate in summary.get("curve", ())],
    )


def _of_policy(summary: Mapping[str, Any]) -> tuple[dict[str, Estimate], dict[str, dict[str, Estimate]]]:
    estimates = {name: _estimate(summary[name]) for name in SCORES if name in summary}
    if "won" in summary:
        estimates[WON] = _estimate(summary["won"]["score"])
    others = {name: scores_of_reference(summary, name) for name in REFERENCES if name in summary["references"]}
    for name, cost in summary["costs"].items():
        column = f"{COST}{name}" if cost["limit"] is None else f"{COST}{name} ≤ {cost['limit']:g}"
        estimates[column] = _exactly(float(cost["mean"]))
        for rival, known in others.items():
            if name in (costs := summary["costs_of_references"][rival]):
                known[column] = _exactly(float(costs[name]))
    for split, block in ((name, part) for name, part in summary.items() if isinstance(part, dict) and "rivals" in part):
        rivals = block["rivals"]
        estimates[split] = _estimate(block["return"])
        estimates |= {f"{split}/{lead}": _estimate(rivals[rival]["policy_ahead_by"]) for lead, rival in LEADS.items()}
        for name in others:
            others[name][split] = _estimate(rivals[name]["return"])
    controls = {name: {"score": _estimate(control["score"])} for name, control in summary.get("controls", {}).items()}
    return estimates | _within_limits(summary.get("constrained", {})), others | controls


def _within_limits(splits: Mapping[str, Any]) -> dict[str, Estimate]:
    told = {"test": "test", "validation": "known wordings", "shift": "shifted world"}
    scores = {f"{WITHIN}score ({told[split]})": _estimate(found["score"]) for split, found in splits.items()}
    costs = {
        f"{WITHIN}{name} ≤ {cost['limit']:g} ({told[split]})": _exactly(float(cost["mean"]))
        for split, found in splits.items()
        for name, cost in found["costs"].items()
    }
    return scores | costs


def scores_of_reference(summary: Mapping[str, Any], name: str) -> dict[str, Estimate]:
    """What a reference policy scores, by the names in `SCORES` that a run's summary has; the shifted world has references of its own."""
    scores = {}
    for kind in (kind for kind in SCORES if kind in summary):
        values = summary["references_shift" if kind == "score_shift" else "references"]
        scores[kind] = _exactly((values[name] - values["random"]) / (values[summary.get("best_known", "optimum")] - values["random"]))
    return scores


def _of_model(summary: Mapping[str, Any]) -> tuple[dict[str, Estimate], dict[str, dict[str, Estimate]]]:
    def measured(answers: Mapping[str, Any]) -> dict[str, Estimate]:
        return {**{name: _estimate(score) for name, score in answers["scores"].items()}, loss_name(answers): _estimate(answers["loss"])}

    others = {name: {score: _estimate(found) for score, found in scores.items()} for name, scores in summary["others"].items()}
    base = {f"lm={summary['lm']} as it was": measured(summary["base"])}
    return {**measured(summary["tuned"]), VALIDATION_LOSS: _exactly(float(summary["best"][1]))}, {**others, **base}


def loss_name(measured: Mapping[str, Any]) -> str:
    """What a language model's loss is the mean over: tokens, if it is known how many were right, else pairs."""
    return "loss a token" if "accuracy" in measured else "loss a pair"


def _estimate(record: Mapping[str, float]) -> Estimate:
    estimate = Estimate(*(float(record[key]) for key in ("mean", "low", "high")))
    if not all(math.isfinite(value) for value in asdict(estimate).values()):
        raise ValueError(f"{estimate} is no estimate")
    return estimate


def _exactly(value: float) -> Estimate:
    return Estimate(value, value, value)


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _of_subject(subject: str, runs: Sequence[Finished]) -> list[Row]:
    """What the newest runs were compared with, and the groups of runs by what counts."""
    others, counts = dict[str, Mapping[str, Estimate]](), next(iter(runs[0].estimates))
    for run in runs:
        others |= run.others
    for name, latest in others.items():
        if any(name in run.others and not math.isclose(run.others[name][counts].mean, latest[counts].mean, abs_tol=1e-6) for run in runs):
            told = f"{name} is not worth the same in all runs, so they differ in more than they tell"
            _warn(f"{subject}: {told}; what is shown is that of {runs[-1].directory}")
    compared = [Row(subject, name.replace("_", " "), estimates) for name, estimates in others.items()]
    groups = _groups(runs)
    names = {name for name, _ in groups}
    found = [Row(subject, name, _over_seeds(members), members, plain if plain != name and plain in names else "") for (name, plain), members in groups.items()]
    last = [row for row in compared if row.name in ("optimum", "expert")]
    return [*(row for row in compared if row not in last), *sorted(found, key=lambda row: row.estimates[counts].mean), *last]


def _groups(runs: Sequence[Finished]) -> dict[tuple[str, str], list[Finished]]:
    """Runs that differ in nothing but their seed, under the name of what they are, and of what they would be but for the settings that few have."""
    chosen: dict[tuple[str, ...], list[Finished]] = defaultdict(list)
    for run in runs:
        chosen[tuple(run.choices.values())].append(run)
    groups: dict[tuple[str, str], dict[int, Finished]] = defaultdict(dict)
    for members in chosen.values():
        keys = sorted({key for run in members for key in run.settings})
        varied = [key for key in keys if len({repr(run.settings[key]) for run in members if key in run.settings}) > 1]
        for place in _PLACES:
            if place in varied and _one_a_seed(members, [key for key in varied if key != place]):
                varied.remove(place)
        usual = _usual(members, varied)
        told = [key for key in varied if key not in usual]
        for run in members:
            apart = [key for key in varied if key in told or repr(run.settings[key]) != usual[key]]
            group = groups[_name(run, apart), _name(run, told)]
            if run.seed in group:  # evaluated again, or trained again: the same seed twice is not two seeds
                _warn(f"{group[run.seed].directory} is left out: {run.directory} is newer, with the same settings and seed")
            group[run.seed] = run
    return {name: [group[seed] for seed in sorted(group)] for name, group in groups.items()}


def _usual(runs: Sequence[Finished], varied: Sequence[str]) -> dict[str, str]:
    """Values that most settings tried have in common, so that they need not be told of each: of three and more, as where one thing is changed at a time.

    None of a setting that some runs do not know, lest they be taken for runs that have its usual value.
    """
    tried = {_combination(run, varied) for run in runs}
    usual = {}
    for place, key in enumerate(varied):
        values = [combination[place] for combination in tried]
        value, count = Counter(values).most_common(1)[0]
        if None not in values and count > 1 and 2 * count > len(tried):
            usual[key] = str(value)
    return usual


def _one_a_seed(runs: Sequence[Finished], varied: Sequence[str]) -> bool:
    """Whether runs that are alike in these settings have a seed each."""
    alike = [(_combination(run, varied), run.seed) for run in runs]
    return len(set(alike)) == len(alike)


def _combination(run: Finished, varied: Sequence[str]) -> tuple[str | None, ...]:
    return tuple(repr(run.settings[key]) if key in run.settings else None for key in varied)


def _name(run: Finished, told: Sequence[str]) -> str:
    """What was trained: the choices, and those settings that set it apart."""
    lm, adapter = run.choices["lm"], run.choices["adapter"]
    parts = [run.choices["algo"], f"lm={lm}" if adapter == "none" else f"lm={lm} ({adapter})"]
    if (warm_start := run.choices.get("warm_start")) is not None:
        parts.append("no warm start" if warm_start == "none" else warm_start)
    if run.choices.get("reward", "gold") != "gold":
        parts.append(f"reward={run.choices['reward']}")
    return ", ".join([*parts, *(f"{key}={run.settings[key]}" for key in told if key in run.settings)])


def _over_seeds(runs: Sequence[Finished]) -> dict[str, Estimate]:
    if len(runs) == 1:
        return dict(runs[0].estimates)
    shared = [name for name in runs[0].estimates if all(name in run.estimates for run in runs)]
    return {name: bootstrap([run.estimates[name].mean for run in runs]) for name in shared}
