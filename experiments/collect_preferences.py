"""Pairs of episodes with the same beginning, judged by a simulated annotator: `experiment=collect_preferences`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from framework.checkpoint import open_checkpoint, save_checkpoint
from framework.config import Count, Fraction, NonNegative, NonNegativeCount
from framework.errors import ConfigError, near
from framework.experiment import POLICY_PARTS, Experiment, Run, write_json
from framework.interfaces import Algorithm, Domain, Tuning
from framework.preferences.behaviours import POLICY, Behaviour, Played, Role, Stage, chosen_by_lot
from framework.preferences.teachers import Pool, Segment, Teacher, Verdict, words
from framework.progress import progress
from framework.seeding import episode_seed
from framework.worlds.free_text import phrasebook_of

COURTESIES = ("Thank you.", "Certainly.", "Of course.", "I am glad to help.", "Thanks for telling me.", "With pleasure.")
Layout = Literal["episode", "branch"]
Cast = Callable[[int, np.random.Generator], Behaviour]
"""Who plays which side of a pair, the first or the second."""
Sides = tuple["Side", "Side"]
_JUDGED = "test"  # the split with pairs that nobody is asked about
_BLOCK = 128  # pairs played side by side
_DRAWS = 50  # a pair, before there is said to be too little to ask about


@dataclass(frozen=True)
class Side:
    """What a teacher is shown of an episode: some of its turns."""

    played: Played
    turns: range

    @property
    def said(self) -> Sequence[str]:
        """By the assistant."""
        return [self.played.said[turn] for turn in self.turns]

    def segment(self, gold: Literal["reward", "regret"]) -> Segment:
        """As a teacher judges it."""
        return self.played.segment(gold, self.turns)

    def messages(self) -> list[dict[str, str]]:
        """What follows the first observation: an act, what came of it, an act, and so on."""
        shown = [{"role": "user", "content": self.played.observations[turn]} for turn in self.turns[1:]]
        said = [{"role": "assistant", "content": text} for text in self.said]
        return [message for pair in zip(said, [*shown, {}], strict=True) for message in pair if message]


@dataclass
class Tally:
    """What was written of a split."""

    rows: int = 0
    skipped: int = 0  # pairs that the teacher did not judge
    alike: int = 0  # pairs that differed in nothing, about which it was not asked
    margins: list[float] = field(default_factory=list)  # of rows that are no ties
    probabilities: list[float] = field(default_factory=list)  # of the same, of what was chosen
    longer: int = 0  # of the same, rows whose chosen side has more words

    def summary(self) -> dict[str, float]:
        """Shares and rates; `bayes_accuracy` is the most that anyone can agree with labels that were drawn so, `bayes_loss` its loss, nats."""
        margins, chances = np.array(self.margins), np.clip(self.probabilities, 1e-12, 1 - 1e-12)
        entropy = -(chances * np.log(chances) + (1 - chances) * np.log1p(-chances))
        means = {
            "agreement": (margins > 0)[margins != 0],
            "bayes_accuracy": np.maximum(chances, 1 - chances),
            "bayes_loss": entropy,
            "chosen_longer": np.full(len(margins), self.longer / max(1, len(margins))),
        }
        counts = {"pairs": self.rows, "ties": 1 - len(margins) / max(1, self.rows), "skipped": self.skipped, "alike": self.alike}
        return {**counts, **{name: float(np.mean(found)) if len(found) else math.nan for name, found in means.items()}}


class CollectPreferences(Experiment):
    """Leaves `preferences/` in the run's folder: a file for each split, whole or not at all; `data=preferences data.path=...` reads it.

    Both episodes of a pair begin with the same seed: the same client, met by two players. A row is `{"prompt", "chosen", "rejected",
    "label", "probability", "margin"}` as `framework.types.Preference` has them; besides, the gold of both sides, who played them, the
    seed of the episode, and whether acts are put in words.

    The test file also has pairs that nobody is asked about, of who plays best and who exploits the domain's proxy, where these do otherwise: a reward
    that knows no better falls for them. Its column `subset` tells them, `hack`, from the others, which have their layout there.

    Args:
        teacher: who judges. Its gold is measured by the spread of gold over a pool of pairs of the same layout, of the training split.
        pairs: to write, by split of the domain; 0: no file.
        layouts: how often each comes up against the other, 0: never. `episode`: two players meet the same client; `branch`: one plays, and from some turn
            of his on another does in his place.
        turns: of a branch, that are shown and judged; one is one observation answered by two acts.
        behaviours: who plays: references of the oracle, or `policy`, the one of `checkpoint=DIR`; how often against the others,
            0: never.
        wander: shares of acts that are taken at random instead; an episode has one of them.
        hacks: how many of the pairs that nobody is asked about, where the domain's proxy can be exploited.
        pool: episodes in the pool.
        words: whether acts are put in words of the domain's phrasebook; they are said by their names otherwise.
        courtesy: share of the episodes in words in which courtesies are said too.
    """

    def __init__(
        self,
        teacher: Teacher,
        pairs: Mapping[str, NonNegativeCount],
        layouts: Mapping[Layout, NonNegative],
        turns: Count,
        behaviours: Mapping[str, NonNegative],
        wander: Sequence[Fraction],
        hacks: NonNegativeCount,
        pool: Count,
        words: bool,
        courtesy: Fraction,
    ) -> None:
        pairs = {split: number for split, number in pairs.items() if number}
        behaviours = {name: weight for name, weight in behaviours.items() if weight}
        layouts = {name: weight for name, weight in layouts.items() if weight}
        if "train" not in pairs or not layouts or not behaviours or not wander:
            raise ValueError("needs pairs of the split train, a layout, a behaviour and a share to wander")
        if teacher.style_bias and not words:
            raise ValueError("the teacher likes courtesy, of which the names of acts have none; set experiment.words=true or teacher.style_bias=0")
        self.teacher, self.pairs, self.layouts, self.turns, self.pool = teacher, pairs, layouts, turns, pool
        self.behaviours, self.wander, self.hacks, self.words, self.courtesy = behaviours, wander, hacks, words, courtesy

    def needs(self, algorithm: Algorithm | Tuning) -> Mapping[str, type]:
        """See `Experiment`."""
        return POLICY_PARTS if POLICY in self.behaviours else {"domain": Domain}

    def run(self, run: Run) -> bool:
        """See `Experiment`."""
        for split in self.pairs:
            if split not in run.domain.splits:
                raise ConfigError(f"experiment.pairs.{split}", f"{run.domain.environment} has no such split{near(split, run.domain.splits)}")
        self._load(run)
        stages = {split: self._stage(run, split) for split in self.pairs}
        stages["train"].check(list(self.behaviours), "experiment.behaviours")
        summary: dict[str, Any] = {}

        def write(directory: Path) -> None:
            pools = {layout: self._pool(stages["train"], run.settings.seed, layout) for layout in self.layouts}
            summary["spread"] = {layout: pool.spread for layout, pool in pools.items()}
            for number, (split, stage) in enumerate(stages.items(), 1):
                rng = np.random.default_rng([run.settings.seed, number])
                summary[split] = self._write(directory / f"{split}.jsonl", split, stage, pools, rng)

        save_checkpoint(run.directory / "preferences", write, {"config": run.config, "choices": run.choices, **run.identity})
        write_json(run.directory / "summary.json", summary)
        Console().print(_table(run, summary, self.teacher))
        print(f"python run.py data=preferences data.path={run.directory / 'preferences'} ...")
        return True

    def _load(self, run: Run) -> None:
        """The policy that plays, where there is one."""
        if POLICY not in run.parts:
            return
        if run.settings.checkpoint is None:
            raise ConfigError("checkpoint", "the behaviour policy needs one; give checkpoint=DIR, a run directory or a checkpoint in it")
        directory, record = open_checkpoint(Path(run.settings.checkpoint))
        run.check_against(record, directory)
        run.policy.load(directory, run.device)

    def _stage(self, run: Run, split: str) -> Stage:
        domain = run.domain
        try:
            book = phrasebook_of(domain) if self.words else None
        except ValueError as error:
            raise ConfigError("experiment.words", f"{error}, and set experiment.words=false") from error
        return Stage(domain, split, run.parts.get(POLICY), book, COURTESIES)

    def _pool(self, stage: Stage, seed: int, layout: Layout) -> Pool:
        """Gold of what is to be judged."""
        rng = np.random.default_rng([seed, 0])
        drawn = self._pairs(layout, stage, _numbers("train", rng), rng, self._player)
        returns: list[float] = []
        with progress(f"pool, {layout}", self.pool) as tell:
            while len(returns) < self.pool:
                returns += [float(side.segment(self.teacher.gold).gold.sum()) for side in next(drawn)]
                tell(len(returns))
        try:
            return Pool(np.array(returns))
        except ValueError as error:
            raise ConfigError("experiment.behaviours", str(error)) from error

    def _write(self, path: Path, split: str, stage: Stage, pools: Mapping[Layout, Pool], rng: np.random.Generator) -> dict[str, float]:
        """The file of a split; returns what was written."""
        tally, wanted = Tally(), self.pairs[split]
        drawn = self._mixed(stage, split, rng, self._player)
        with path.open("w", encoding="utf-8") as file, progress(split, wanted) as tell:
            while tally.rows < wanted:
                layout, (first, second) = next(drawn)
                one, other = (side.segment(self.teacher.gold) for side in (first, second))
                if first.said == second.said:
                    tally.alike += 1
                elif verdict := self.teacher.judge(one, other, pools[layout], rng):
                    file.write(json.dumps(self._row(layout, first, second, verdict, tally), ensure_ascii=False) + "\n")
                    tell(tally.rows)
                else:
                    tally.skipped += 1
                if tally.alike + tally.skipped > _DRAWS * wanted:
                    rule = f"of {_DRAWS} times as many, only {tally.rows} were worth asking about; ask for fewer, or let more behaviours play"
                    raise ConfigError(f"experiment.pairs.{split}", rule)
            if split == _JUDGED and stage.plays("proxy_optimum"):
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in islice(self._hacks(stage, rng), self.hacks))
        return tally.summary()

    def _hacks(self, stage: Stage, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        """Lines of a file whose chosen side is the optimum's; fewer than asked for where the two seldom differ."""
        sides = (Behaviour("optimum"), Behaviour("proxy_optimum"))
        for _, (best, hack) in islice(self._mixed(stage, _JUDGED, rng, lambda side, _: sides[side]), _DRAWS * self.hacks):
            if hack.segment("regret").gold.sum() < best.segment("regret").gold.sum():
                yield self._line(best, hack, 1.0, 1.0, "hack")

    def _row(self, layout: Layout, first: Side, second: Side, verdict: Verdict, tally: Tally) -> dict[str, Any]:
        """A line of a file; what was liked comes first, of a tie what was drawn first."""
        turned = verdict.label == 0.0
        chosen, rejected = (second, first) if turned else (first, second)
        probability = 1 - verdict.probability if turned else verdict.probability
        tally.rows += 1
        if verdict.label != 0.5:
            tally.margins.append(float(np.subtract(*self._gold(chosen, rejected))))
            tally.probabilities.append(probability)
            tally.longer += words(chosen.said) > words(rejected.said)
        return self._line(chosen, rejected, 0.5 if verdict.label == 0.5 else 1.0, probability, layout)

    def _line(self, chosen: Side, rejected: Side, label: float, probability: float, subset: str) -> dict[str, Any]:
        """What stands in a file."""
        liked, other = self._gold(chosen, rejected)
        return {
            **self._shown(chosen, rejected),
            "label": label,
            "probability": round(probability, 6),
            "margin": round(liked - other, 6),
            "chosen_gold": round(liked, 6),
            "rejected_gold": round(other, 6),
            "chosen_by": str(chosen.played.role.behaviour),
            "rejected_by": str(rejected.played.role.behaviour),
            "episode": chosen.played.role.seed,
            "subset": subset,
            "acts": "words" if self.words else "names",
        }

    def _shown(self, chosen: Side, rejected: Side) -> dict[str, Any]:
        """What a reward learns from: plain texts where a turn is all that any pair shows, conversations otherwise."""
        prompt = chosen.played.observations[chosen.turns[0]]
        if "episode" not in self.layouts and self.turns == 1:
            return {"prompt": prompt, "chosen": chosen.said[0], "rejected": rejected.said[0]}
        return {"prompt": [{"role": "user", "content": prompt}], "chosen": chosen.messages(), "rejected": rejected.messages()}

    def _gold(self, chosen: Side, rejected: Side) -> tuple[float, float]:
        liked, other = (float(side.segment(self.teacher.gold).gold.sum()) for side in (chosen, rejected))
        return liked, other

    def _mixed(self, stage: Stage, split: str, rng: np.random.Generator, cast: Cast) -> Iterator[tuple[Layout, Sides]]:
        """Endless pairs, each of a layout drawn by lot; no two with the same client."""
        numbers, (lots,) = _numbers(split, rng), rng.spawn(1)
        drawn = {layout: self._pairs(layout, stage, numbers, rng, cast) for layout in self.layouts}
        while True:
            layout = chosen_by_lot(self.layouts, lots)
            yield layout, next(drawn[layout])

    def _pairs(self, layout: Layout, stage: Stage, numbers: Iterator[int], rng: np.random.Generator, cast: Cast) -> Iterator[Sides]:
        """Endless pairs of what two players did with the same client."""
        while True:
            seeds = list(islice(numbers, _BLOCK))
            if layout == "episode":
                played = stage.play([self._role(seed, rng, cast(side, rng)) for seed in seeds for side in range(2)])
                sides = [Side(one, range(len(one.acts))) for one in played]
                yield from zip(sides[::2], sides[1::2], strict=True)
            else:
                yield from self._branches(stage, seeds, rng, cast)

    def _branches(self, stage: Stage, seeds: Sequence[int], rng: np.random.Generator, cast: Cast) -> Iterator[Sides]:
        """From a turn of each episode that leaves a choice: what its player did, and what another does from there."""
        firsts, roles = list[Side](), list[Role]()
        for played in stage.play([self._role(seed, rng, cast(0, rng)) for seed in seeds]):
            if open_turns := [turn for turn, choices in enumerate(played.choices) if choices > 1]:
                turn = int(rng.choice(open_turns))
                end = turn + self.turns
                firsts.append(Side(played, range(turn, min(end, len(played.acts)))))
                roles.append(self._role(played.role.seed, rng, cast(1, rng), tuple(played.acts[:turn]), end))
        for first, second in zip(firsts, stage.play(roles), strict=True):
            yield first, Side(second, range(first.turns.start, len(second.acts)))

    def _player(self, _: int, rng: np.random.Generator) -> Behaviour:
        """Who plays, by chance."""
        return Behaviour(chosen_by_lot(self.behaviours, rng), self.wander[int(rng.integers(len(self.wander)))])

    def _role(self, seed: int, rng: np.random.Generator, behaviour: Behaviour, script: tuple[int, ...] = (), turns: int | None = None) -> Role:
        return Role(seed, behaviour, int(rng.integers(2**62)), bool(rng.random() < self.courtesy), script, turns)


def _numbers(split: str, rng: np.random.Generator) -> Iterator[int]:
    """Seeds of a split's episodes, from one drawn by chance on."""
    return (episode_seed(split, number) for number in count(int(rng.integers(2**27))))


def _table(run: Run, summary: Mapping[str, Any], teacher: Teacher) -> Table:
    """The summary for people."""
    spreads = ", ".join(f"{spread:.3g} ({layout})" for layout, spread in summary["spread"].items())
    title = f"{run.domain.name}/{run.domain.environment}: preferences by {teacher.gold}, one spread is {spreads}"
    table = Table("split", title=title, box=SIMPLE_HEAD, padding=(0, 0, 0, 1))
    rows = {split: told for split, told in summary.items() if split != "spread"}
    for name in next(iter(rows.values())):
        table.add_column(name.replace("_", "\n"), justify="right")
    for split, told in rows.items():
        table.add_row(split, *(f"{value:,}" if isinstance(value, int) else f"{value:.3f}" for value in told.values()))
    return table
