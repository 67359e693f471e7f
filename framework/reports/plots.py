"""Pictures of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from framework.types import Estimate

_LINES = {
    "optimum": ("#1b7837", "-"),
    "expert": ("#1b7837", "-"),
    "heuristic": ("#b8860b", "--"),
    "best_constant": ("#888888", "--"),
    "random": ("#888888", ":"),
}
_LABEL = 0.06  # height of a line's label, of the axis


def learning_curve(
    points: Sequence[tuple[int, Estimate]], references: Mapping[str, float], title: str, path: Path, climbed: Sequence[tuple[int, Estimate]] = ()
) -> None:
    """Return against environment steps with its 95 % band, between the references; and below it, where that is another, the reward that was climbed.

    Args:
        points: steps, and the estimate of the gold return there.
        references: return of the policies of known worth.
        title: what was trained.
        path: a PNG file.
        climbed: steps, and what another reward than gold paid the training episodes there.
    """
    figure, panels = plt.subplots(1 + bool(climbed), figsize=(7, 6 if climbed else 4), sharex=True, squeeze=False, layout="constrained")
    axes = panels[0, 0]
    _band(axes, points, "#2166ac", "policy, validation split")
    drawn = {name: references[name] for name in _LINES if name in references}
    for name, value in drawn.items():
        axes.axhline(value, color=_LINES[name][0], linestyle=_LINES[name][1], linewidth=1)
    low, high = axes.get_ylim()
    if drawn:
        axes.set_ylim(low, max(high, max(drawn.values()) + _LABEL * (high - low)))  # room for the uppermost label
    for name, value in drawn.items():
        crowded = any(0 < other - value < _LABEL * (high - low) for other in drawn.values())  # a label above the line would run into another line's
        place = {"va": "top" if crowded else "bottom", "ha": "right", "xycoords": ("axes fraction", "data")}
        axes.annotate(name.replace("_", " "), (1.0, value), fontsize=8, color=_LINES[name][0], **place)
    axes.set(ylabel="gold return")
    if climbed:
        _band(panels[1, 0], climbed, "#b2182b", "policy, training episodes")
        panels[1, 0].set(ylabel="the reward that it learns from")
    figure.suptitle(title, fontsize=9)
    panels[-1, 0].set(xlabel="environment steps")
    panels[-1, 0].xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    if not any(steps for steps, _ in points):
        panels[-1, 0].set_xticks([0])  # one look at a policy that did not learn
    for axes in panels[:, 0]:
        axes.grid(alpha=0.2)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _band(axes: Axes, points: Sequence[tuple[int, Estimate]], colour: str, label: str) -> None:
    """Means with their intervals."""
    steps = [step for step, _ in points]
    axes.fill_between(steps, [e.low for _, e in points], [e.high for _, e in points], alpha=0.25, color=colour, linewidth=0)
    axes.plot(steps, [e.mean for _, e in points], marker="o", markersize=3, color=colour, label=label)


def loss_curve(training: Sequence[tuple[int, float]], validation: Sequence[tuple[int, Estimate]], best: int, title: str, path: Path) -> None:
    """Training and validation loss against updates, and the update that was kept.

    Args:
        training: updates, and the mean training loss since the point before.
        validation: updates, and the loss on the validation split there.
        best: update with the least validation loss.
        title: what was trained.
        path: a PNG file.
    """
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    steps = [step for step, _ in validation]
    axes.plot([step for step, _ in training], [loss for _, loss in training], color="#888888", linewidth=1, label="training")
    axes.fill_between(steps, [e.low for _, e in validation], [e.high for _, e in validation], alpha=0.2, color="#2166ac", linewidth=0)
    axes.plot(steps, [e.mean for _, e in validation], marker="o", markersize=3, color="#2166ac", label="validation")
    axes.axvline(best, color="#1b7837", linewidth=1, linestyle="--")
    axes.annotate(f"kept: {best:,}", (best, 0.97), (-3, 0), ("data", "axes fraction"), "offset points", fontsize=8, color="#1b7837", va="top", ha="right")
    axes.set(xlabel="updates", ylabel="loss, nats a token", ylim=(0, None))
    figure.suptitle(title, fontsize=9)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(alpha=0.2)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def fit_picture(
    training: Sequence[tuple[int, float]],
    validation: Sequence[tuple[int, Estimate]],
    best: int,
    reliability: Sequence[Mapping[str, float]],
    title: str,
    path: Path,
) -> None:
    """Losses of a reward against updates, and how often its choice is the teacher's against how sure it is.

    Args:
        training: updates, and the mean training loss since the point before.
        validation: updates, and the loss on the validation pairs there.
        best: update that was kept.
        reliability: as `framework.preferences.agreement.reliability` gives it.
        title: what was fitted.
        path: a PNG file.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    steps = [step for step, _ in validation]
    left.plot([step for step, _ in training], [loss for _, loss in training], color="#888888", linewidth=1, label="training")
    left.fill_between(steps, [e.low for _, e in validation], [e.high for _, e in validation], alpha=0.2, color="#2166ac", linewidth=0)
    left.plot(steps, [e.mean for _, e in validation], marker="o", markersize=3, color="#2166ac", label="validation")
    left.axvline(best, color="#1b7837", linewidth=1, linestyle="--", label="kept")
    left.set(xlabel="updates", ylabel="loss, nats a pair")
    left.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    left.legend(fontsize=8, frameon=False)
    right.plot([0.5, 1], [0.5, 1], color="#888888", linewidth=1, linestyle="--")
    sure, agreed, sizes = ([part[name] for part in reliability] for name in ("confidence", "agreement", "share"))
    right.plot(sure, agreed, color="#2166ac", linewidth=1)
    right.scatter(sure, agreed, s=[10 + 300 * size for size in sizes], color="#2166ac", alpha=0.6)
    right.set(xlabel="how sure the reward is of its choice", ylabel="how often it is the teacher's", xlim=(0.48, 1.02))
    for axes in (left, right):
        axes.grid(alpha=0.2)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def preference_curve(training: Sequence[tuple[int, float]], looks: Sequence[tuple[int, Mapping[str, Estimate]]], best: int, title: str, path: Path) -> None:
    """Loss, preferences and distance from the model as it was against updates, and the update that was kept.

    Args:
        training: updates, and the mean training loss since the point before.
        looks: updates, and what was measured there on the validation split: `loss`, `reward_accuracy`, `likelier` and `kl`.
        best: update with the least validation loss.
        title: what was trained.
        path: a PNG file.
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
    steps = [step for step, _ in looks]
    left.plot([step for step, _ in training], [loss for _, loss in training], color="#888888", linewidth=1, label="training")
    shown = [(left, "loss", "validation"), (middle, "reward_accuracy", "more rewarded"), (middle, "likelier", "likelier a token"), (right, "kl", None)]
    for (axes, name, label), colour in zip(shown, ("#2166ac", "#2166ac", "#b8860b", "#2166ac"), strict=True):
        found = [look[name] for _, look in looks]
        axes.fill_between(steps, [e.low for e in found], [e.high for e in found], alpha=0.2, color=colour, linewidth=0)
        axes.plot(steps, [e.mean for e in found], marker="o", markersize=3, color=colour, label=label)
    told = {left: "loss a pair", middle: "share of pairs in which the chosen one is", right: "KL to the model as it was, nats a completion"}
    for axes, what in told.items():
        axes.axvline(best, color="#1b7837", linewidth=1, linestyle="--", label="kept" if axes is left else None)
        axes.set(xlabel="updates", ylabel=what)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.grid(alpha=0.2)
    middle.set_ylim(-0.02, 1.02)
    for axes in (left, middle):
        axes.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=150)
    plt.close(figure)
