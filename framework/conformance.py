"""Does a domain keep its promises? What the author of a plug-in runs: `python run.py experiment=check_domain domain=...`.

Each rule measures one promise, knows no domain by name, and says what it measured. All seeds are fixed: tomorrow it says the same.
"""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, pairwise
from types import SimpleNamespace

import numpy as np
from gymnasium.spaces import Box
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from framework.algorithms.sb3_adapter import EncodedWorld
from framework.interfaces import Domain, Oracle
from framework.rollout import explore, following, observations, onwards, random_acts, situation, story
from framework.seeding import episode_seed
from framework.types import Floats
from framework.worlds.free_text import MAX_RUBRIC, free_text, phrasebook_of, sentences
from framework.worlds.probes import probe_words

MIN_LANGUAGE_VALUE, MIN_PROXY_LOSS, MAX_SHARED_LINES = 0.3, 0.1, 0.1
MIN_PROMPTS = 5_000
MAX_LINE_WORDS, MAX_CHARACTERS = 60, 2_000
MAX_STEP_SECONDS = 1e-3
_ERRORS, _MANY_ERRORS = 4.0, 5.0  # standard errors that a mean may be off, and that each of many means may
_EPISODES, _ROLLED_OUT, _PROBED = 200, 2_000, 3_000

Rule = Callable[[Domain], str]


class Broken(Exception):
    """A rule that does not hold: which, what was seen, what to do."""


@dataclass(frozen=True, slots=True)
class Check:
    """One promise: whether it is kept, and what was measured or is to be mended."""

    name: str
    passed: bool
    detail: str


def check_domain(domain: Domain, timed: bool = False) -> list[Check]:
    """All checks of the world in use; `timed` adds the speed of a step, which depends on the machine."""
    return [run_rule(rule, domain) for rule in RULES + (speed,) * timed]


def run_rule(rule: Rule, domain: Domain) -> Check:
    """One check; an error inside it is a failure, told in its own words. Where no optimum is known, what rests on one is not asked for."""
    try:
        if rule in _ON_AN_OPTIMUM and not domain.oracle("train").exact:
            return Check(rule.__name__, True, "left out: the world is only played, nobody knows its optimum")
        return Check(rule.__name__, True, rule(domain))
    except Exception as error:  # noqa: BLE001  a plug-in may raise anything, and the other checks still count
        return Check(rule.__name__, False, str(error) if isinstance(error, Broken) else f"{type(error).__name__}: {error}")


def gymnasium_env(domain: Domain) -> str:
    """Gymnasium's own checker accepts the world."""
    return _warned(lambda: check_env(domain.make("train"), skip_render_check=True))


def stable_baselines(domain: Domain) -> str:
    """Stable-Baselines3's checker accepts the world as its algorithms get it."""
    box = Box(0, 1, (len(domain.acts),), np.float32)
    reader = SimpleNamespace(space=box, encode=lambda texts, masks: masks.astype(np.float32))  # a policy that reads the mask alone
    return _warned(lambda: sb3_check_env(EncodedWorld(domain.make("train"), reader)))


def seeding(domain: Domain) -> str:
    """A seed is an episode, told alike by two worlds whatever they played before; other seeds are other episodes."""
    one, other = domain.make("train"), domain.make("train")
    stories = [story(one, number) for number in range(_EPISODES)]
    for number in reversed(range(_EPISODES)):
        _require(story(other, number) == stories[number], f"seed {number} and the same acts told two stories; draw from np_random, keep nothing from before")
    different = len({str(story) for story in stories})
    _require(
        different > min(_EPISODES // 10, (domain.episodes_in("train") or _EPISODES) // 2),
        f"{_EPISODES} seeds told {different} stories; draw the episode from np_random",
    )
    return f"{_EPISODES} seeds twice: the same {different} stories"


def splits(domain: Domain) -> str:
    """Every split can be made and played, recorded cases by number; no two share the seed of an episode."""
    names = [*domain.splits, *domain.real_splits]
    _require("train" in names and len(set(names)) == len(names), f"needs `train` and distinct names, not {names}")
    seeds = [episode_seed(name, number) for name in domain.splits for number in range(1_000)]
    _require(len(set(seeds)) == len(seeds), f"episodes of {', '.join(domain.splits)} share seeds; see framework.seeding")
    for name in names:
        world, cases = domain.make(name), domain.real_splits.get(name)
        for case in range(3) if cases is None else (0, cases // 2, cases - 1):
            world.reset(seed=episode_seed(name, case), options={} if cases is None else {"case": case})
            list(onwards(world, random_acts(case)))
    return f"{', '.join(names)}: made and played"


def step(domain: Domain) -> str:
    """Rewards add up, costs stand apart, masks leave an act, acts keep their names, episodes end in time."""
    longest, costly = 0, set[str]()
    for turns in (turns for split in (*domain.splits, *domain.real_splits) for _, turns in explore(domain.make(split), _EPISODES // 2)):
        longest = max(longest, len(turns))
        _require(all((turn.info["action_mask"] == after.mask).all() for turn, after in pairwise(turns)), "info['action_mask'] is not action_mask()")
        for turn in turns:
            act, terms, costs = domain.acts[turn.action], turn.info["reward_terms"], turn.info["costs"]
            _require(abs(turn.reward - sum(terms.values())) < 1e-9, f"{act}: reward {turn.reward:g} is not the sum of its reward_terms {terms}")
            _require(not set(terms) & set(costs), f"{act}: {set(terms) & set(costs)} is both reward and cost; costs stand apart")
            _require(all(0 <= cost < np.inf for cost in costs.values()), f"{act}: a cost is finite and not negative, unlike {costs}")
            _require(turn.mask.shape == (len(domain.acts),) and turn.mask.dtype == bool, f"action_mask {turn.mask!r} is not one bool an act")
            _require(tuple(turn.info["action_labels"]) == tuple(domain.acts), f"info['action_labels'] is not the domain's acts {domain.acts}")
            costly |= set(costs)
    unknown = set(domain.cost_limits) - costly - {"format"}
    _require(not unknown, f"cost_limits has {', '.join(unknown)}, which no act cost (seen: {', '.join(sorted(costly)) or 'none'})")
    return f"episodes of at most {longest} acts; costs: {', '.join(sorted(costly)) or 'none'}"


def forbidden(domain: Domain) -> str:
    """An act that the mask forbids changes nothing but the clock and costs `format`; repeated, it ends the episode, at the price of `abandoned`."""
    world, met = domain.make("train"), 0
    for number in range(_EPISODES):
        shown = situation(world, number)
        before = (shown, world.information_state(), world.action_mask().tolist())
        for action in np.flatnonzero(~world.action_mask())[:1]:
            met += 1
            for turn in onwards(world, lambda *_: int(action)):  # noqa: B023
                unchanged = (turn.text, turn.next_state, turn.info["action_mask"].tolist()) == before and turn.reward <= 0
                _require(unchanged and not turn.terminated, f"{world.acts[action]} was forbidden and changed the world; see TextWorld")
                _require(turn.info["costs"].get("format", 0) > 0, f"{world.acts[action]} was forbidden and not charged to the cost `format`")
    return f"met in {met} episodes"


def text(domain: Domain) -> str:
    """Every observation is in its space: printable, in short lines, of bounded length."""
    words = characters = 0
    for split in (*domain.splits, *domain.real_splits):
        world = domain.make(split)
        for shown in observations(world, _EPISODES // 2):
            lines = shown.split("\n")
            _require(world.observation_space.contains(shown), f"{split}: not in observation_space (its characters, its length): ...{shown[-160:]!r}")
            _require(all(line.isprintable() and line.strip() for line in lines), f"{split}: a line is empty or unprintable in ...{shown[-160:]!r}")
            words, characters = max(words, *(len(line.split()) for line in lines)), max(characters, len(shown))
    _require(words <= MAX_LINE_WORDS, f"a line of {words} words; at most {MAX_LINE_WORDS}: one fact or utterance a line")
    _require(characters <= MAX_CHARACTERS, f"an observation of {characters} characters; at most {MAX_CHARACTERS}")
    return f"at most {words} words a line, {characters} characters in all"


def state(domain: Domain) -> str:
    """`get_state` is plain JSON, and a fresh world goes on from it identically, into the next episode too."""
    world = domain.make("train")
    for number in range(_EPISODES // 4):
        situation(world, number)
        kept = world.get_state()
        _require(json.loads(json.dumps(kept, allow_nan=False)) == kept, "get_state is changed by a JSON round trip; no tuples, arrays, NaN or number keys")
        fresh = domain.make("train")
        fresh.set_state(json.loads(json.dumps(kept)))
        ends = [([turn.told for turn in onwards(w, random_acts(number))], w.reset()[0]) for w in (world, fresh)]
        _require(ends[0] == ends[1], f"seed {number}: a world restored by set_state went on differently; keep all state and np_random's")
    return f"{_EPISODES // 4} situations restored"


def action_values(domain: Domain) -> str:
    """The oracle and the mask agree on what is allowed, references too, and the optimum takes a best act."""
    for split, oracle in _oracles(domain):
        turns = [turn for _, turns in explore(domain.make(split), _EPISODES) for turn in turns]
        states, masks = np.array([turn.state for turn in turns]), np.stack([turn.mask for turn in turns])
        values = oracle.action_values(states)
        _require(values.shape == masks.shape, f"{split}: action_values has shape {values.shape}, the masks {masks.shape}")
        _require(np.isfinite(values[masks]).all() and np.isneginf(values[~masks]).all(), f"{split}: action_values is not -inf exactly where the mask forbids")
        for name in ("random", "best_constant", "heuristic", "optimum", "constrained_optimum", "proxy_optimum"):
            chances = oracle.probabilities(name, states)
            _require(np.allclose(chances.sum(axis=1), 1) and (chances >= 0).all(), f"{split}: probabilities of {name} do not sum to one")
            _require(not chances[~masks].any(), f"{split}: {name} takes an act that the mask forbids")
        lost = float((values.max(axis=1, keepdims=True) - values)[oracle.probabilities("optimum", states) > 0].max())
        _require(lost < 1e-9, f"{split}: `optimum` takes an act that is worth {lost:g} less than the best in action_values")
    return f"-inf exactly where forbidden, in {len(turns)} situations of each oracle"


def lemma(domain: Domain) -> str:
    """Values are true: on average an act is worth its reward and the value of where it leads (evaluation rests on this)."""
    worst = 0.0
    for split, oracle in _oracles(domain):
        world = domain.make(split)
        turns = [turn for _, turns in explore(world, _ROLLED_OUT) for turn in turns]
        actions = np.array([turn.action for turn in turns])
        promised = oracle.action_values(np.array([turn.state for turn in turns]))[np.arange(len(turns)), actions]
        led_to = oracle.action_values(np.array([turn.next_state for turn in turns])).max(axis=1)
        surprise = np.array([turn.reward for turn in turns]) + np.where([turn.terminated for turn in turns], 0, led_to) - promised
        for action in np.flatnonzero(np.bincount(actions) >= 100):  # of fewer the error is not known
            worst = max(worst, off := _off(more := surprise[actions == action], 0.0, leap=float(np.abs(surprise).max())))
            _require(off <= _MANY_ERRORS, f"{split}: {world.acts[action]} earns {more.mean():+.4f} more than its action value, {off:.1f} standard errors")
    return f"reward + next value - action value is 0 for every act, at most {worst:.1f} standard errors off"


def rollout(domain: Domain) -> str:
    """Played with real rewards, the references `optimum` and `random` earn and cost what the oracle says."""
    told = []
    for split, oracle in _oracles(domain):
        world = domain.make(split)
        for name in ("optimum", "random", "constrained_optimum"):
            said, played = oracle.references[name], []
            for number in range(_ROLLED_OUT):
                world.reset(seed=episode_seed(split, number))
                played.append(list(onwards(world, following(oracle, name, number))))
            opening = oracle.action_values(np.array([turns[0].state for turns in played])).max(axis=1)
            pairs = {"return": (said.value, np.array([sum(turn.reward for turn in turns) for turns in played]))}
            pairs["opening value (the optimum's)"] = (oracle.references["optimum"].value, opening)
            for cost, value in said.costs.items():
                pairs[f"cost {cost}"] = (value, np.array([sum(turn.info["costs"].get(cost, 0.0) for turn in turns) for turns in played]))
            for what, (exact, seen) in pairs.items():
                off = _off(seen, exact, rare=what.startswith("cost"))
                told.append(f"{split}: {what} of {name} {seen.mean():.4f} played, {exact:.4f} by the oracle, {off:.1f} standard errors apart")
                _require(off <= _ERRORS, told[-1])
    return "; ".join(line for line in told if "return" in line)


def order(domain: Domain) -> str:
    """random < heuristic <= optimum <= informed, and best_constant <= optimum."""
    for split, oracle in _oracles(domain):
        worth = {name: reference.value for name, reference in oracle.references.items()}
        small = 1e-9 * max(1.0, *map(abs, worth.values()))
        listed = f"{split}: {', '.join(f'{name} {value:.3f}' for name, value in worth.items())}"
        bounded = max(worth["heuristic"], worth["best_constant"]) <= worth["optimum"] + small and worth["optimum"] <= worth["informed"] + small
        _require(bounded and worth["random"] < worth["heuristic"], f"{listed}; want random < heuristic <= optimum <= informed, best_constant <= optimum")
    return "random < heuristic <= optimum <= informed; best_constant <= optimum"


def language_value(domain: Domain) -> str:
    """Reading pays: the share of what there is to know that the best reader wins over the best constant act."""
    worth = {name: reference.value for name, reference in domain.oracle("train").references.items()}
    blind = max(worth["best_constant"], worth.get("open_loop", -np.inf))
    share = (worth["optimum"] - blind) / (worth["informed"] - blind)
    _require(share >= MIN_LANGUAGE_VALUE, f"{share:.2f}, under {MIN_LANGUAGE_VALUE}: asking hardly pays; make information cheaper or decisions weightier")
    return f"{share:.2f} of the way from the best blind policy to informed"


def limits(domain: Domain) -> str:
    """The cost limits can be kept, and the constrained optimum keeps them and earns no more than the optimum."""
    told = []
    for split, oracle in _oracles(domain):
        best, within = oracle.references["optimum"], oracle.references["constrained_optimum"]
        over = {name: cost for name, cost in within.costs.items() if cost > domain.cost_limits.get(name, np.inf) + 1e-6}
        _require(not over, f"{split}: constrained_optimum costs {over}, over the limits {dict(domain.cost_limits)}")
        _require(within.value <= best.value + 1e-6 * max(1.0, abs(best.value)), f"{split}: constrained_optimum earns more than the optimum")
        told.append(f"{split}: {within.value:.3f} within the limits, {best.value:.3f} without")
    return "; ".join(told)


def proxy(domain: Domain) -> str:
    """Who maximises the proxy earns clearly less than the optimum: there is something to study."""
    if not domain.proxy:
        return "there is no proxy"
    worth = {name: reference.value for name, reference in domain.oracle("train").references.items()}
    lost = (worth["optimum"] - worth["proxy_optimum"]) / (worth["optimum"] - worth["random"])
    _require(lost >= MIN_PROXY_LOSS, f"maximising the proxy loses {lost:.2f} of what lies between random and optimum, under {MIN_PROXY_LOSS}")
    return f"{domain.proxy}; maximising it loses {lost:.2f} of what lies between random and optimum"


def words(domain: Domain) -> str:
    """Acts can be said: the optimum in words does what the optimum does, gibberish only costs `format`, the rubric is bounded."""
    if domain.phrases is None:
        return "there is no phrasebook"
    oracle, book, rng = domain.oracle("train"), phrasebook_of(domain), np.random.default_rng(0)
    world = free_text(domain, "train", rubric=MAX_RUBRIC)
    most = MAX_RUBRIC * (oracle.references["optimum"].value - oracle.references["random"].value)
    for number in range(_EPISODES // 2):
        shown, _ = world.reset(seed=number)
        before = (shown, world.world.information_state())
        text, reward, ended, truncated, info = world.step("mumble mumble")
        idle = (text, world.world.information_state()) == before and reward == 0 and info["costs"] == {"format": 1.0}
        _require(idle, "gibberish did more than cost `format`")
        while not (ended or truncated):
            act = int(oracle.action_values(np.array([world.world.information_state()]))[0].argmax())
            said = book.express(act, world.world.grounds(), rng)
            text, reward, ended, truncated, info = world.step(said)
            _require(info["act"] == domain.acts[act], f"{said!r} was meant as {domain.acts[act]} and understood as {info['act']}")
        extra = info["reward_terms"].get("rubric", 0.0)
        _require(-1e-9 <= extra <= most + 1e-9, f"the rubric paid {extra:g}, outside [0, {most:g}]")
        _require(info.get("rubric", {}).get("no_contradiction", True), f"{said!r} rests on grounds that grounds() itself contradicts")
    return f"{sum(map(len, book.say))} sentences for {len(domain.acts)} acts"


def demonstrations(domain: Domain) -> str:
    """Prompts for supervised training hardly repeat, and one seed gives the same ones."""
    if domain.phrases is None:
        return "there is no phrasebook"
    first, again = (list(islice(sentences(domain, "train", seed=0), _EPISODES)) for _ in range(2))
    _require(first == again, "one seed gave two streams of demonstrations")
    prompts = {pair["prompt"] for pair in islice(sentences(domain, "train", seed=1), 4 * MIN_PROMPTS)}
    _require(len(prompts) >= MIN_PROMPTS, f"{len(prompts):,} distinct prompts among {4 * MIN_PROMPTS:,}; at least {MIN_PROMPTS:,} are wanted")
    return f"{len(prompts):,} distinct prompts among {4 * MIN_PROMPTS:,}"


def leak(domain: Domain) -> str:
    """Words tell no more of what acts will earn than the information state does; `framework.worlds.probes` says what this can find."""
    probe = probe_words(domain.make("train"), domain.oracle("train"), _PROBED)
    if not probe.situations:
        return "nothing to measure: information states hardly recur, or acts earn the same in all situations of one"
    told = f"the words explain {probe.explained:+.3f} of what the state leaves open, at most {probe.chance:+.3f} by chance ({probe.situations} situations)"
    _require(probe.explained <= probe.chance, f"{told}; let the information state and chance alone choose the words")
    return told


def wordings(domain: Domain) -> str:
    """The test split says things in its own lines."""
    if "test" not in domain.splits:
        return "there is no split `test`"
    train, test = ({line for shown in observations(domain.make(split), 2 * _EPISODES) for line in shown.split("\n")} for split in ("train", "test"))
    share = len(train & test) / len(test)
    told = f"{share:.1%} of {len(test)} distinct lines of `test` are in `train` too"
    _require(share <= MAX_SHARED_LINES, f"{told}, such as {sorted(train & test)[:2]}; give it a bank of its own")
    return told


def yardstick(domain: Domain) -> str:
    """Where no optimum is known the expert measures, who must clearly earn more than random acts."""
    told = []
    for split, oracle in _oracles(domain):
        if oracle.exact:
            return "the optimum"
        random, expert = oracle.references["random"], oracle.references[oracle.best]
        oracle.score(np.array([random.value]))  # an error where they are not clearly apart
        told.append(f"{split}: random {random.value:.3f}, {oracle.best} {expert.value:.3f} as played in {expert.episodes} episodes")
    return "; ".join(told)


def speed(domain: Domain) -> str:
    """A random act, its step and the observation take under a millisecond."""
    world, taken = domain.make("train"), list[float]()
    for number in range(_EPISODES):
        world.reset(seed=number)
        start = time.perf_counter()
        turns = list(onwards(world, random_acts(number)))
        taken.append((time.perf_counter() - start) / len(turns))
    _require(np.median(taken) < MAX_STEP_SECONDS, f"{1e3 * np.median(taken):.2f} ms a step; look up or draw at reset what costs time")
    return f"{1e6 * np.median(taken):.0f} microseconds a step"


RULES: tuple[Rule, ...] = (
    gymnasium_env, stable_baselines, seeding, splits, step, forbidden, text, state, action_values, lemma, rollout, order, language_value,
    limits, proxy, words, demonstrations, leak, wordings, yardstick,
)  # fmt: skip
_ON_AN_OPTIMUM = (action_values, lemma, rollout, order, language_value, limits, proxy, words, demonstrations, leak, wordings)


def _require(holds: bool | np.bool_, rule: str) -> None:
    if not holds:
        raise Broken(rule)


def _warned(accept: Callable[[], None]) -> str:
    """Runs another library's checker; its warnings are worth telling, its errors are raised."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        accept()
    return "; ".join(dict.fromkeys(re.sub(r"\x1b\[\d+m", "", str(warning.message)) for warning in caught)) or "no warnings"


def _oracles(domain: Domain) -> list[tuple[str, Oracle]]:
    """Each distinct oracle, with the first split it speaks of."""
    pairs = [(split, domain.oracle(split)) for split in domain.splits]
    return [pair for number, pair in enumerate(pairs) if not any(pair[1] is earlier for _, earlier in pairs[:number])]


def _off(sample: Floats, expected: float, rare: bool = False, leap: float = 0.0) -> float:
    """How many standard errors the mean of a sample is from what was expected.

    Args:
        sample: what was seen.
        expected: its mean, as promised.
        rare: counts of events so rare that a sample may hold none; chance alone moves the number.
        leap: the largest surprise seen anywhere, which a small sample may have missed by chance.
    """
    if not np.isfinite(sample).all():
        return np.inf
    poisson = max(expected, 0.0) ** 0.5 / len(sample) ** 0.5 if rare else 0.0
    error = max(poisson, float(sample.std()) / len(sample) ** 0.5 + leap / len(sample))
    error = max(error, 1e-9 * max(1.0, abs(expected)))  # where there is no chance there is still rounding
    return float(abs(sample.mean() - expected) / error)
