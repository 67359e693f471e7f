"""How good is a policy? Its worth on held-out episodes, as a share of the optimum, with an interval.

In a world with an oracle an episode is not scored by its luck. By the performance-difference lemma (Kakade and Langford, 2002)

    J(pi) = V*(s_0) + E_pi[ sum_t Q*(s_t, a_t) - V*(s_t) ],

so an episode is worth the optimum less what each act gave away, and a flawless policy has an interval of no width. All policies
meet the same episodes (common random numbers). Recorded cases are scored by what truly happened, and so is a world whose values
nobody knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from framework.interfaces import Domain, Oracle, Policy, World
from framework.seeding import chance_apart, episode_seed
from framework.statistics import bootstrap
from framework.types import Episode, Estimate, Floats, Ints, Observations, Reply, Step
from framework.worlds.given_away import cut_short

_TOGETHER = 256  # episodes played side by side


@dataclass(frozen=True)
class Evaluation:
    """One policy on one split."""

    split: str
    returns: Estimate
    score: Estimate | None  # share of the optimum (or of the best that is known): 0 for random acts, 1 for it; None for recorded cases
    costs: Mapping[str, float]  # mean violations an episode
    acts: Mapping[str, float]  # how often each is taken in an episode, on average; "": nothing that was understood and allowed
    values: Floats  # [episodes], what `returns` averages
    stories: Sequence[Episode]  # a few episodes, to read


@dataclass
class _Seat:
    """A world being played."""

    number: int
    world: World
    text: str
    mask: np.ndarray
    value: float
    costs: dict[str, float] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    ended: bool = False


def evaluate(policy: Policy, domain: Domain, split: str, episodes: int, on_episodes: Callable[[int], None] = lambda done: None, stories: int = 4) -> Evaluation:
    """Plays the first `episodes` of a split (if there are so many; all cases of a recorded one), the policy taking its best act.

    Args:
        policy: who acts.
        domain: the world.
        split: one of the domain's splits or real splits.
        episodes: how many.
        on_episodes: told how many are done, now and then.
        stories: how many episodes to keep for reading.
    """
    recorded = split in domain.real_splits
    if (there_are := domain.episodes_in(split)) is not None:
        episodes = there_are if recorded else min(episodes, there_are)
    oracle = domain.oracle(split)
    worlds = [domain.make(split) for _ in range(min(_TOGETHER, episodes))]
    seats: list[_Seat] = []
    for first in range(0, episodes, _TOGETHER):
        with chance_apart(first), policy.playing():  # a policy that cannot but draw what it says draws the same each time, and the run goes on as it would have
            seats += _play(policy, oracle, worlds, split, range(first, min(first + _TOGETHER, episodes)), recorded)
        on_episodes(len(seats))
    values = np.array([seat.value for seat in seats])
    names = dict.fromkeys([*domain.cost_limits, *(name for seat in seats for name in seat.costs)])
    costs = {name: float(np.mean([seat.costs.get(name, 0.0) for seat in seats])) for name in names}
    acts = {act: count / len(seats) for act, count in Counter(step.act for seat in seats for step in seat.steps).items()}
    told = [Episode(seat.number, seat.steps, seat.value) for seat in seats[:stories]]
    return Evaluation(split, bootstrap(values), None if recorded else oracle.score(values), costs, acts, values, told)


def _play(policy: Policy, oracle: Oracle, worlds: Sequence[World], split: str, numbers: range, recorded: bool) -> list[_Seat]:
    """Plays some episodes side by side to their ends."""
    seats, as_it_happens = [], recorded or not oracle.exact
    for number, world in zip(numbers, worlds, strict=False):
        text, info = world.reset(seed=episode_seed(split, number), options={"case": number} if recorded else {})
        start = 0.0 if as_it_happens else oracle.references["optimum"].value
        seats.append(_Seat(number, world, text, info["action_mask"], start))
    while playing := [seat for seat in seats if not seat.ended]:
        states = _states([seat.world for seat in playing])
        replies = policy.reply(Observations([seat.text for seat in playing], np.stack([seat.mask for seat in playing]), states), deterministic=True)
        values = np.empty(0) if as_it_happens else oracle.action_values(states)
        for row, (seat, reply) in enumerate(zip(playing, replies, strict=True)):
            allowed = reply.act >= 0 and seat.mask[reply.act]
            truncated = _step(seat, reply, states[row])
            if as_it_happens:
                seat.value += sum(seat.steps[-1].reward_terms.values())
            elif allowed:  # a forbidden act, or none, changes nothing, so it gives nothing away
                seat.value += float(values[row, reply.act] - values[row].max())
            if truncated and not as_it_happens:  # what was still to be had is lost, and a world may charge for that
                seat.value += cut_short(oracle, seat.world.information_state(), seat.steps[-1].reward_terms)
    return seats


def _step(seat: _Seat, reply: Reply, state: Ints) -> bool:
    """Does what was replied in an information state and writes it down; returns whether the clock ended the episode."""
    shown, act, fields = seat.text, seat.world.acts[reply.act] if reply.act >= 0 else "", seat.world.fields()
    seat.world.hear(reply.said)
    seat.text, _, terminated, truncated, info = seat.world.step(reply.act) if reply.act >= 0 else seat.world.idle()
    seat.mask, seat.ended = info["action_mask"], terminated or truncated
    left = seat.world.information_state() if truncated else None
    seat.steps.append(Step(shown, act, info["reward_terms"], info["costs"], info["proxy"], tuple(state.tolist()), left, reply.said, fields))
    for name, cost in info["costs"].items():
        seat.costs[name] = seat.costs.get(name, 0.0) + cost
    return truncated


def _states(worlds: Sequence[World]) -> Ints:
    return np.array([world.information_state() for world in worlds], dtype=np.int64)
