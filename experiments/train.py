"""Train, watch on the validation split, judge on the held-out splits: the default experiment."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from framework.checkpoint import open_checkpoint, save_checkpoint
from framework.config import Count, Fraction, NonNegative, NonNegativeCount, Positive
from framework.constrained import cautious_limits, cautious_prices, check_limits, excess
from framework.departure import departure
from framework.errors import CheckpointError, ConfigError
from framework.evaluation import evaluate
from framework.experiment import POLICY_PARTS, Experiment, Interrupted, Run, Stop, write_json
from framework.interfaces import Algorithm, Learning, Policy, RewardModel, SpeakingPolicy, Tuning, World
from framework.ledger import RECENT, beside_gold, entry, exploited, warned
from framework.progress import progress
from framework.reports.plots import learning_curve
from framework.reports.report import write_report
from framework.reports.summary import judge, print_summary, since_the_start, stories_table, unbeaten
from framework.rewards.gold import Gold
from framework.rewards.guard import Guard
from framework.rollout import observations
from framework.seeding import chance_apart
from framework.statistics import bootstrap
from framework.types import Estimate
from framework.worlds.rewarded import RewardedWorld

Climb = Callable[[], dict[str, Any]]
"""What `framework.departure.departure` tells of the policy as it is when it is called."""


class Train(Experiment):
    """Warm start (if any), learning with a validation curve, evaluation on every held-out split, and the run directory.

    Args:
        episodes: of each evaluation at the end, and of one as learning begins, so that what it wins is told by episodes that choose nothing.
        curve_points: evaluations while learning; at each a checkpoint is kept that the run can be resumed from.
        curve_episodes: of each of them.
        climb_episodes: of each look at how far a policy that learns from another reward than gold has gone from where it began
            (`framework.departure`); 0: none.
        explore_episodes: random episodes on which the policy's statistics are fitted.
        most_abstained: share of turns for which a reward may fail before the run stops (`framework.rewards.guard`).
        reward_time_limit_s: for one call of it; one that takes longer has failed.
        caution: where the algorithm keeps cost limits, of the demonstrations (`framework.constrained.cautious_prices`), and how far below its limits, as a
            share of them, it aims and is chosen.
    """

    def __init__(
        self,
        episodes: Count,
        curve_points: Count,
        curve_episodes: Count,
        climb_episodes: NonNegativeCount,
        explore_episodes: Count,
        most_abstained: Fraction,
        reward_time_limit_s: Positive,
        caution: NonNegative,
    ) -> None:
        self.episodes, self.curve_points, self.curve_episodes, self.explore_episodes = episodes, curve_points, curve_episodes, explore_episodes
        self.climb_episodes = climb_episodes
        self.most_abstained, self.reward_time_limit_s, self.caution = most_abstained, reward_time_limit_s, caution

    def needs(self, algorithm: Algorithm | Tuning) -> Mapping[str, type]:
        """See `Experiment`."""
        policy = {"policy": algorithm.improves} if isinstance(algorithm, Algorithm) else {}
        return {**POLICY_PARTS, **policy, "algo": Algorithm, "reward": RewardModel}

    def run(self, run: Run) -> bool:
        """See `Experiment`."""
        resumed, directory, start = run.settings.resume, None, None
        run.begins_anew("; to begin from its language model, lm.path=DIR/checkpoint warm_start=none")
        if run.algorithm.constrained:
            check_limits(run.domain)
        with chance_apart(run.settings.seed):  # so that a policy begins as it would begin on gold
            reward = self._reward(run)
        watched = reward is not None and self.climb_episodes > 0
        if resumed:
            directory, record = open_checkpoint(Path(resumed))
            if record["finished"]:
                raise CheckpointError(f"{directory}: this run is finished, there is nothing to resume; use experiment=evaluate checkpoint={directory}")
            run.check_against(record, directory, whole=True)
            record["wall_s"] -= time.monotonic()  # becomes a duration again when the clock is added
            if watched:
                run.policy.load(open_checkpoint(run.directory / "start")[0], run.device)
                start = self._snapshot(run)
            run.policy.load(directory, run.device)
        else:
            record = {"curve": [], "best": None, "wall_s": -time.monotonic(), "env_steps": 0, "episodes": [], "ledger": [], "path": []}
            record |= {"constrained": run.algorithm.constrained, "before": None, "start": []}
            run.policy.prepare(list(observations(run.domain.make("train"), self.explore_episodes)), run.device)
            if run.warm_start is not None:
                record["before"] = asdict(evaluate(run.policy, run.domain, "validation", self.curve_episodes, stories=0).returns)
            if watched:
                self._snapshot(run)  # what cannot be had is told before the warm start
            self._warm_start(run)
            if watched:
                start = self._snapshot(run)
                save_checkpoint(run.directory / "start", run.policy.save, {"env_steps": 0})
        climb = partial(departure, run.policy, start, run.domain, reward, self.climb_episodes) if reward is not None and start is not None else None
        self._learn(run, record, directory, reward, climb)
        run.policy.load(open_checkpoint(run.directory / "best")[0], run.device)
        self._keep(run, record, finished=True)
        summary, evaluations = judge(run, self.episodes, run.algorithm.constrained)
        summary |= {key: record[key] for key in ("before", "curve", "best", "env_steps")} | {"wall_s": round(record["wall_s"] + time.monotonic(), 1)}
        summary |= since_the_start(run.domain, record["start"], evaluations, self.curve_episodes)
        summary["unbeaten"] = unbeaten(summary)
        summary["warnings"] = list(run.algorithm.warnings())
        if reward is not None:
            ledger = record["ledger"]
            summary["climbed"] = {"ledger": ledger, "exploited": exploited(record["curve"], ledger), "warned": warned(ledger), "path": record["path"]}
        write_json(run.directory / "summary.json", summary)
        write_report(summary, evaluations, run.directory, run.title)
        run.tracker.log({f"final/{name}": summary[name]["mean"] for name in ("return", "score", "score_known")}, record["env_steps"])
        run.tracker.log_table("episodes", *stories_table(evaluations))
        run.tracker.log_checkpoint(run.directory / "checkpoint")
        print_summary(summary, run.directory)
        return True

    def _warm_start(self, run: Run) -> None:
        """Clones demonstrations, where the run is to begin so."""
        if run.warm_start is None:
            return
        prices = cautious_prices(run.domain.oracle("train"), self.caution) if run.algorithm.constrained else None
        demonstrations = run.domain.demonstrations("train", run.settings.seed, prices=prices)
        with progress("warm start", run.warm_start.steps(run.policy)) as tell:
            run.warm_start.fit(run.policy, demonstrations, tell)  # type: ignore[arg-type]

    def _reward(self, run: Run) -> Guard | None:
        """What is to be learnt from, ready and under guard; None: the world's own reward, which needs neither."""
        if isinstance(run.reward, Gold):
            return None
        reward = Guard(run.reward, self.most_abstained, self.reward_time_limit_s)
        reward.prepare(list(observations(run.domain.make("train"), self.explore_episodes)))
        if run.reward.words and not isinstance(run.policy, SpeakingPolicy):
            print("warning: the reward was fitted to acts in words, and this policy names its acts, of which the reward has read none", flush=True)
        return reward

    def _snapshot(self, run: Run) -> Policy:
        """The policy as it is, to compare with what becomes of it."""
        try:
            return run.policy.snapshot()
        except TypeError as error:
            raise ConfigError("experiment.climb_episodes", f"{error}; use policy=head, generative or likelihood, or 0") from error

    def _learn(self, run: Run, record: dict[str, Any], directory: Path | None, reward: Guard | None, climb: Climb | None) -> None:
        """Lets the algorithm learn; between its rollouts looks on, keeps checkpoints, and stops if asked to."""
        total = run.algorithm.total_steps
        every = max(1, total // self.curve_points)

        def make_world() -> World:
            world = run.domain.make("train")
            return world if reward is None else RewardedWorld(world, reward, record["episodes"])

        with progress(f"train {total:,} steps", total, record["env_steps"]) as tell, Stop() as stop:

            def between_rollouts(env_steps: int, metrics: Mapping[str, float]) -> bool:
                record["env_steps"] = env_steps
                if reward is not None:
                    metrics = beside_gold(metrics, reward.metrics(), record["episodes"])
                earned = metrics.get("rollout/return" if reward is None else "rollout/gold_return")
                tell(env_steps, "" if earned is None else f"return {earned:.2f}")
                run.tracker.log(metrics, env_steps)
                if not record["ledger"] and len(record["episodes"]) >= RECENT:  # of the policy as it was: what signals are measured by
                    self._look(record)
                if len(record["curve"]) * every <= env_steps < total:  # the end is looked at below
                    self._point(run, record, climb)
                    self._keep(run, record, finished=False)
                elif stop.signal is not None:
                    self._keep(run, record, finished=False)
                return stop.signal is None

            run.algorithm.learn(run.policy, make_world, Learning(between_rollouts, run.settings.seed, run.device, directory, self._limits(run)))
        if stop.signal is not None:
            raise Interrupted(stop.exit_code, f"python run.py resume={run.directory}")
        self._point(run, record, climb)

    def _point(self, run: Run, record: dict[str, Any], climb: Climb | None) -> None:
        """One point of the learning curve; the policy that did best on the validation split so far is kept.

        Where limits are to be kept, the best is the nearest to keeping them with caution, and of those that keep them the one that earns most.
        """
        begins = not record["curve"] and record["env_steps"] < run.algorithm.total_steps
        found = evaluate(run.policy, run.domain, "validation", max(self.curve_episodes, self.episodes if begins else 0), stories=0)
        if begins:
            record["start"] = found.values.tolist()
        returns, over = bootstrap(found.values[: self.curve_episodes]), excess(found.costs, self._limits(run)) if run.algorithm.constrained else 0.0
        record["curve"].append([record["env_steps"], asdict(returns)])
        self._look(record)
        if climb is not None:
            record["path"].append([record["env_steps"], gone := climb()])
            run.tracker.log({"drawn/kl": gone["kl"], **{f"drawn/{name}": gone[name]["mean"] for name in ("gold", "reward")}}, record["env_steps"])
        if record["best"] is None or (-over, returns.mean) > (-record["best"][2], record["best"][1]):
            record["best"] = [record["env_steps"], returns.mean, over]
            save_checkpoint(run.directory / "best", run.policy.save, {"env_steps": record["env_steps"]})
        costs = {f"validation/cost/{name}": cost for name, cost in found.costs.items()}
        run.tracker.log({"validation/return": returns.mean, "validation/low": returns.low, "validation/high": returns.high, **costs}, record["env_steps"])
        references = {name: reference.value for name, reference in run.domain.oracle("validation").references.items()}
        points = [(steps, Estimate(**estimate)) for steps, estimate in record["curve"]]
        climbed = [(look["env_steps"], Estimate(**look["reward"])) for look in record["ledger"]]
        learning_curve(points, references, run.title, run.directory / "learning_curve.png", climbed)

    def _limits(self, run: Run) -> dict[str, float]:
        """That an algorithm which keeps limits is given, and its policies are chosen by."""
        return cautious_limits(run.domain.cost_limits, self.caution)

    def _look(self, record: dict[str, Any]) -> None:
        """An entry of the ledger, unless it has one of this step."""
        ledger, steps = record["ledger"], record["env_steps"]
        if (not ledger or ledger[-1]["env_steps"] != steps) and (look := entry(steps, record["episodes"])):
            ledger.append(look)

    def _keep(self, run: Run, record: dict[str, Any], finished: bool) -> None:
        """A checkpoint: of a run to go on with, or of the best policy when it is finished."""

        def write(directory: Path) -> None:
            run.policy.save(directory, working=not finished)
            if not finished:
                run.algorithm.save(directory)

        so_far = {**record, "wall_s": round(record["wall_s"] + time.monotonic(), 1), "finished": finished}
        save_checkpoint(run.directory / "checkpoint", write, {**so_far, "choices": run.choices, "config": run.config, **run.identity})
