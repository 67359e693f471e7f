"""Do words give away what a reader should not know? A linear probe on the text of situations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.kernel_ridge import KernelRidge

from framework.interfaces import Oracle, World
from framework.rollout import following, onwards, situation
from framework.types import Floats, Ints

_CONTROLS, _DEVIATIONS = 20, 5.0
_LEAST = 5  # situations of an information state, without which the mean of their earnings is noise


@dataclass(frozen=True, slots=True)
class Probe:
    """What words explain (R2) of the earnings that the information state leaves open, and what they may by chance."""

    explained: float
    chance: float  # so many standard deviations (`_DEVIATIONS`) above the mean of the controls
    situations: int  # that share an information state with enough others; with 0 nothing could be measured


def probe_words(world: World, oracle: Oracle, situations: int) -> Probe:
    """Fits a probe on two thirds of the situations, openings and one act on, and tests it on the rest.

    Situations with one information state must be alike to a reader. From their words (TF-IDF, ridge) the probe predicts what each
    act, followed by `best_constant`, really earns there, less the mean for that information state; a control is fitted on earnings
    that were shuffled among situations of one information state. Finds words that betray the hidden state; not what needs the
    order of words, nor what is told after the second act, nor anything where information states hardly recur.
    """
    texts, groups, earned = _earnings(world, oracle, situations)
    fit = np.arange(situations) % 3 < 2
    count = np.bincount(groups[fit], minlength=groups.max() + 1)
    mean = np.stack([np.bincount(groups[fit], row, len(count)) for row in earned[fit].T], axis=1) / np.maximum(count, 1)[:, None]
    surprise, known = earned - mean[groups], count[groups] >= _LEAST
    fit, held_out = known & fit, known & ~fit
    varied = np.ptp(surprise[held_out], axis=0) > 1e-9 if held_out.any() else np.zeros(len(world.acts), bool)
    if not varied.any():
        return Probe(0.0, 0.0, 0)
    words = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    shuffled = _shuffles(groups[fit], _CONTROLS)
    fitted = KernelRidge(alpha=10.0).fit(words[fit], np.concatenate([surprise[fit][order][:, varied] for order in shuffled], axis=1))
    truth = surprise[held_out][:, None, varied]
    wrong = truth - fitted.predict(words[held_out]).reshape(len(truth), len(shuffled), -1)
    explained = (1 - (wrong**2).sum(axis=0) / (truth**2).sum(axis=0)).max(axis=1)
    return Probe(float(explained[0]), float(explained[1:].mean() + _DEVIATIONS * explained[1:].std()), int(known.sum()))


def _shuffles(groups: Ints, controls: int) -> list[Ints]:
    """The identity, then orders that mix each group within itself."""
    rng, places, orders = np.random.default_rng(0), np.argsort(groups, kind="stable"), [np.arange(len(groups))]
    for _ in range(controls):
        order = np.empty_like(places)
        order[places] = np.lexsort((rng.random(len(groups)), groups))
        orders.append(order)
    return orders


def _earnings(world: World, oracle: Oracle, situations: int) -> tuple[list[str], Ints, Floats]:
    """Texts, a number for each distinct information state, and what every act and then `best_constant` earn (0 if forbidden)."""
    texts, states, earned = [], [], np.zeros((situations, len(world.acts)))
    for number in range(situations):
        texts.append(situation(world, number, most_acts=1))
        states.append(world.information_state())
        kept = world.get_state()
        for action in np.flatnonzero(world.action_mask()):
            world.set_state(kept)
            _, reward, terminated, truncated, _ = world.step(int(action))
            rest = () if terminated or truncated else onwards(world, following(oracle, "best_constant", number))
            earned[number, action] = float(reward) + sum(turn.reward for turn in rest)
    return texts, np.unique(np.array(states), axis=0, return_inverse=True)[1].reshape(-1), earned
