"""What a run came to: `summary.json`, the table at the end, and the episodes worth reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from framework.constrained import constrained_score, excess
from framework.evaluation import Evaluation, evaluate
from framework.experiment import Run, world_of
from framework.interfaces import Domain, Oracle
from framework.ledger import told_in_words
from framework.policies.scripted import ReferencePolicy
from framework.progress import progress
from framework.reports.tables.finished import SPLITS_TOLD, scores_of_reference
from framework.statistics import bootstrap
from framework.types import Episode, Estimate, Floats

_RIVALS = ("random", "best_constant", "heuristic", "optimum")
_REFERENCES = (*_RIVALS, "constrained_optimum", "proxy_optimum", "informed", "expert")
_SCORES = {"score": "test", "score_known": "validation", "score_shift": "shift"}
_COMPARED, _UNLIKE = 256, 0.1  # episodes in which the optimum's acts are counted; times an episode that make a difference worth a word


def judge(run: Run, episodes: int, constrained: bool = False) -> tuple[dict[str, Any], list[Evaluation]]:
    """Evaluates the policy on every held-out split and sums it up as plain data.

    Args:
        run: whose policy.
        episodes: of each split.
        constrained: whether it was to keep the domain's cost limits.
    """
    domain, splits = run.domain, [*(split for split in _SCORES.values() if split in run.domain.splits), *run.domain.real_splits]
    evaluations = {}
    with progress("evaluate", len(splits)) as tell:
        for done, split in enumerate(splits):
            evaluations[split] = evaluate(run.policy, domain, split, episodes)
            tell(done + 1, split)
    test, oracle = evaluations["test"], domain.oracle("test")
    names = [name for name in _REFERENCES if name in oracle.references]
    summary = {
        **run.identity,
        "episodes": len(test.values),
        "return": asdict(test.returns),
        **{key: asdict(score) for key, split in _SCORES.items() if split in evaluations and (score := evaluations[split].score)},
        "controls": {name: _control(oracle, earned[: len(test.values)]) for name, earned in domain.controls("test").items()},
        "yardstick": domain.yardstick,
        "best_known": oracle.best,
        "references_played": oracle.references[oracle.best].episodes,
        "references": {name: oracle.references[name].value for name in names},
        **({"references_shift": {name: domain.oracle("shift").references[name].value for name in names}} if "shift" in evaluations else {}),
        "costs": {name: {"mean": cost, "limit": domain.cost_limits.get(name)} for name, cost in test.costs.items()},
        "costs_of_references": {name: dict(oracle.references[name].costs) for name in names},
    }
    if oracle.exact:
        summary["acts"] = _acts(domain, test)
    if constrained:
        summary["constrained"] = {split: _within(domain, evaluations[split]) for split in _SCORES.values() if split in evaluations}
    for split in domain.real_splits:
        summary[split] = _recorded(domain, evaluations[split])
    return summary, list(evaluations.values())


def since_the_start(domain: Domain, start: Sequence[float], evaluations: Sequence[Evaluation], chosen_by: int) -> dict[str, Any]:
    """How good the policy was when learning began (`start`), and what learning won (`won`), on the validation split.

    What was won is the mean of differences episode by episode, since both met the same, and in units of the optimum's lead over random acts.
    The first `chosen_by` episodes do not count: by them it was chosen which policy is kept, which flatters it.

    Args:
        domain: the world.
        start: what the episodes were worth to the policy as learning began, `[episodes]`; nothing where that is not known.
        evaluations: of the policy that was kept.
        chosen_by: episodes.

    Returns:
        what there is to tell as plain data; nothing is won that no episodes are left to tell by.
    """
    if not start:
        return {}
    oracle, began = domain.oracle("validation"), np.array(start)
    ended = next(found.values for found in evaluations if found.split == "validation")
    count = min(len(began), len(ended))
    told = {"start": {"return": asdict(bootstrap(began)), "score": asdict(oracle.score(began))}}
    if count - chosen_by < 2:
        return told
    won, lead = bootstrap((ended[:count] - began[:count])[chosen_by:]), oracle.references[oracle.best].value - oracle.references["random"].value
    shares = {name: value / lead for name, value in asdict(won).items()}
    return told | {"won": {"episodes": count - chosen_by, "return": asdict(won), "score": shares}}


def unbeaten(summary: Mapping[str, Any]) -> list[str]:
    """What reads nothing, needs no language model or was there before learning, and is nevertheless not shown to be worse than the policy: a sentence each."""
    unseen, known = SPLITS_TOLD[summary["best_known"] == "optimum"]
    told = {"score": unseen, "score_known": known, "score_shift": "the shifted world"}
    constant = scores_of_reference(summary, "best_constant") if "best_constant" in summary["references"] else {}
    found = [(key, f"in {told[key]} always doing the same", score.mean) for key, score in constant.items()]
    for name, control in summary["controls"].items():
        found.append(("score", f"in {unseen} {name.replace('_', ' ')}, which needs no language model,", control["score"]["mean"]))
    lines = [
        f"{rival} scores {score:.3f}; the policy is not shown to be better, {_interval(summary[key])}"
        for key, rival, score in found
        if summary[key]["low"] <= score
    ]
    if "won" in summary and (won := summary["won"]["score"])["low"] <= 0:
        lines.append(f"in {known} the policy as learning began; nothing is shown to have been won since, {_interval(won)}")
    return lines


def _acts(domain: Domain, test: Evaluation) -> dict[str, dict[str, float]]:
    """How often the policy and the optimum take each act in an episode of the test split; those come first in which they differ most."""
    best = evaluate(ReferencePolicy(domain.oracle("test"), "optimum"), domain, "test", min(len(test.values), _COMPARED), stories=0).acts
    found = {act: {"policy": test.acts.get(act, 0.0), "optimum": best.get(act, 0.0)} for act in {**test.acts, **best}}
    return dict(sorted(found.items(), key=lambda each: -abs(each[1]["policy"] - each[1]["optimum"])))


def _control(oracle: Oracle, earned: Floats) -> dict[str, Any]:
    return {"return": asdict(bootstrap(earned)), "score": asdict(oracle.score(earned))}


def _within(domain: Domain, evaluation: Evaluation) -> dict[str, Any]:
    """Share of the constrained optimum, and which limits were kept."""
    oracle = domain.oracle(evaluation.split)
    return {
        "score": asdict(constrained_score(evaluation.returns, oracle)),
        "costs": {name: {"mean": evaluation.costs[name], "limit": limit} for name, limit in domain.cost_limits.items()},
        "excess": excess(evaluation.costs, domain.cost_limits),
        "prices": dict(oracle.prices),
    }


def _recorded(domain: Domain, evaluation: Evaluation) -> dict[str, Any]:
    """Recorded cases: the policy's mean outcome, every rival's on the same cases, and the paired differences."""
    oracle, rivals = domain.oracle(evaluation.split), {}
    for name in _RIVALS:
        rival = evaluate(ReferencePolicy(oracle, name), domain, evaluation.split, 0)
        ahead = bootstrap(evaluation.values - rival.values)
        rivals[name] = {"return": asdict(rival.returns), "policy_ahead_by": asdict(ahead)}
    return {"cases": len(evaluation.values), "return": asdict(evaluation.returns), "costs": dict(evaluation.costs), "rivals": rivals}


def print_summary(summary: Mapping[str, Any], directory: Path) -> None:
    """The table at the end of a run, and where things are."""
    console = Console(width=110)
    paid = f" · reward: {summary['reward']}" if summary.get("reward", "gold") != "gold" else ""
    chosen = f"{summary['algo']}{paid} · lm={summary['lm']} ({summary['adapter']}) · warm start: {summary['warm_start']} · seed {summary['seed']}"
    title = f"{world_of(summary)} · {chosen}"
    table = Table(title=title, title_justify="left")
    for column in ("policy", "return [95 %]", "score [95 %]", *summary["costs"]):
        table.add_column(column, justify="left" if column == "policy" else "right")
    limits = ["" if cost["limit"] is None else f"≤ {cost['limit']:g}" for cost in summary["costs"].values()]
    unseen, known = SPLITS_TOLD[exact := summary.get("best_known", "optimum") == "optimum"]
    _add_references(table, summary, ("random", "best_constant", "heuristic"))
    for name, control in summary["controls"].items():
        table.add_row(f"{name.replace('_', ' ')} (no language model)", _interval(control["return"]), _interval(control["score"]), *[""] * len(limits))
    if summary.get("before"):
        table.add_row(f"before its warm start, {known}", _interval(summary["before"]), "", *[""] * len(limits))
    if "start" in summary:
        table.add_row(f"as learning began, {known}", _interval(summary["start"]["return"]), _interval(summary["start"]["score"]), *[""] * len(limits))
    table.add_row(
        f"trained, {unseen} (test)",
        _interval(summary["return"]),
        _interval(summary["score"]),
        *(f"{c['mean']:.3f}" for c in summary["costs"].values()),
        style="bold",
    )
    for told, key in ((known, "score_known"), ("shifted world", "score_shift")):
        if key in summary:
            table.add_row(f"trained, {told}", "", _interval(summary[key]), *[""] * len(limits))
    if "won" in summary:
        table.add_row(f"won by learning, {known}", _interval(summary["won"]["return"]), _interval(summary["won"]["score"]), *[""] * len(limits))
    _add_references(table, summary, ("constrained_optimum", "optimum", "expert"))
    if limits:
        table.add_row("limit", "", "", *limits, style="dim")
    console.print(table)
    if not exact:
        console.print(f"No optimum is known here: {summary['yardstick']}, both as played in {summary['references_played']:,} episodes.")
    if "constrained" in summary:
        _print_within(console, summary["constrained"])
    for split in (key for key, value in summary.items() if isinstance(value, dict) and "rivals" in value):
        _print_recorded(console, split, summary[split])
    console.print(
        f"{summary['env_steps']:,} environment steps, {summary['wall_s']:.0f} s. Kept: the policy best on validation, at step {summary['best'][0]:,}."
    )
    for warning in summary.get("warnings", ()):
        console.print(f"warning: {warning}", soft_wrap=True)
    for line in summary.get("unbeaten", ()):
        console.print(f"not beaten: {line}", soft_wrap=True)
    if unlike := [(act or "nothing understood", n) for act, n in summary.get("acts", {}).items() if abs(n["policy"] - n["optimum"]) >= _UNLIKE][:3]:
        told = ", ".join(f"{act} {n['policy']:.2f} ({n['optimum']:.2f})" for act, n in unlike)
        console.print(f"Most unlike the optimum (in brackets), acts an episode: {told}.", soft_wrap=True)
    for line in told_in_words(summary["climbed"]) if "climbed" in summary else []:
        console.print(line, soft_wrap=True)
    console.print("One seed is a demonstration, not a result.")
    console.print(f"run: {directory}\nsee: {directory / 'learning_curve.png'}, {directory / 'report.html'}")
    console.print(f"again: python run.py experiment=evaluate checkpoint={directory}", soft_wrap=True)


def _add_references(table: Table, summary: Mapping[str, Any], names: Sequence[str]) -> None:
    """Rows of those reference policies that the world has."""
    references = summary["references"]
    for name in (name for name in names if name in references):
        score = scores_of_reference(summary, name)["score"].mean
        table.add_row(name.replace("_", " "), f"{references[name]:.3f}", f"{score:.3f}", *_costs(summary["costs_of_references"][name], summary))


def stories_table(evaluations: Sequence[Evaluation]) -> tuple[list[str], list[list[str | float]]]:
    """Columns and rows of the episodes kept for reading."""
    columns = ["split", "episode", "observation", "act", "reward", "costs", "value of episode"]
    return columns, [row for evaluation in evaluations for episode in evaluation.stories for row in _story(evaluation.split, episode)]


def _story(split: str, episode: Episode) -> list[list[str | float]]:
    return [
        [
            split,
            episode.seed,
            step.observation,
            step.reply,
            sum(step.reward_terms.values()),
            ", ".join(n for n, c in step.costs.items() if c),
            episode.value,
        ]
        for step in episode.steps
    ]


def _print_within(console: Console, splits: Mapping[str, Any]) -> None:
    costs = splits["test"]["costs"]
    table = Table(title="within the cost limits: random acts 0, constrained optimum 1", title_justify="left")
    for column in ("trained", "score within limits [95 %]", *(f"{name} ≤ {cost['limit']:g}" for name, cost in costs.items()), "limits"):
        table.add_column(column, justify="left" if column == "trained" else "right")
    for split, told in (("test", "unseen wordings (test)"), ("validation", "known wordings"), ("shift", "shifted world")):
        found = splits[split]
        means = [f"{cost['mean']:.3f}" for cost in found["costs"].values()]
        table.add_row(told, _interval(found["score"]), *means, "broken" if found["excess"] else "kept", style="bold" if split == "test" else None)
    console.print(table)


def _print_recorded(console: Console, split: str, recorded: Mapping[str, Any]) -> None:
    table = Table(title=f"{recorded['cases']} recorded cases ({split}), scored by what truly happened", title_justify="left")
    for column in ("policy", "mean outcome [95 %]", "trained policy ahead by [95 %, paired]"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    table.add_row("trained", _interval(recorded["return"]), "", style="bold")
    for name, rival in recorded["rivals"].items():
        table.add_row(name.replace("_", " "), _interval(rival["return"]), _interval(rival["policy_ahead_by"]))
    console.print(table)


def _interval(estimate: Mapping[str, float]) -> str:
    return str(Estimate(**estimate))


def _costs(costs: Mapping[str, float], summary: Mapping[str, Any]) -> list[str]:
    return [f"{costs[name]:.3f}" if name in costs else "" for name in summary["costs"]]
