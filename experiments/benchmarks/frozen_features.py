"""PPO on a frozen language model: the model inside SB3's policy against line features read once (README.md beside this file).

`python -m experiments.benchmarks.frozen_features [--rounds 3] [--steps 128] [--n-envs 8] [--out FILE]`

Both ways play the same world with the same settings on one torch thread. Every round measures each case once, in turn, so that
whatever else the machine does meets all of them; the first round is a warm-up. The result is the ratio within a round. Seconds are
of processor time: on one thread of an idle machine the same as by the clock on the wall, and a busy neighbour moves them little.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from sb3_contrib import MaskablePPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import Tensor

from framework.config import CONF, build, load_domain, to_dict
from framework.experiment import write_json
from framework.interfaces import Domain, Learning, World
from framework.lm.pretrained import PretrainedEncoder
from framework.policies.head import HeadPolicy
from framework.rollout import observations
from framework.seeding import seed_everything

KINDS = ("repeating", "never repeating")
WAYS = ("inside", "inside, sorted", "lines")
_ROLLOUT, _BATCH, _LONGER = 256, 64, 4  # steps of an iteration; of a minibatch; `lines` is over too soon for one iteration to tell
_EXPLORE = 3_000  # episodes of random play whose lines are cached beforehand: nearly all lines of the world
_GROUP = 16  # texts read together where they are sorted by length
# The rate is so low that both ways go on acting at random: they meet texts of the same lengths, at the cost of any other rate.
_SHARED: dict[str, Any] = {
    "n_epochs": 10, "learning_rate": 1e-9, "gamma": 1.0, "gae_lambda": 0.95, "clip_range": 0.2, "ent_coef": 0.0, "vf_coef": 0.5,
    "max_grad_norm": 0.5, "target_kl": None,
}  # fmt: skip


class NeverRepeating(gymnasium.Wrapper):  # type: ignore[type-arg]
    """Ends every line of every observation with a number that has not been used before."""

    _numbers = itertools.count(10_000)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """See `gymnasium.Env`."""
        text, info = self.env.reset(seed=seed, options=options)
        return self._number(text), info

    def step(self, action: int) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env`."""
        text, reward, terminated, truncated, info = self.env.step(action)
        return self._number(text), reward, terminated, truncated, info

    def _number(self, text: str) -> str:
        return "\n".join(f"{line} {next(self._numbers)}" for line in text.split("\n"))


class Tokenised(gymnasium.Wrapper):  # type: ignore[type-arg]
    """Shows the token ids of the whole text, padded with 0."""

    def __init__(self, world: gymnasium.Env[str, int], tokenizer: Any, width: int = 512) -> None:
        super().__init__(world)
        self.observation_space = gymnasium.spaces.Box(0, len(tokenizer) - 1, (width,), np.int64)
        self._tokenizer, self._width = tokenizer, width

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """See `gymnasium.Env`."""
        text, _ = self.env.reset(seed=seed, options=options)
        return self._ids(text), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env`."""
        text, reward, terminated, truncated, _ = self.env.step(int(action))
        return self._ids(text), float(reward), terminated, truncated, {}

    def action_masks(self) -> np.ndarray:
        """What `MaskablePPO` asks for."""
        return cast(World, self.unwrapped).action_mask()

    def _ids(self, text: str) -> np.ndarray:
        ids = self._tokenizer(text, truncation=True, max_length=self._width)["input_ids"]
        return np.pad(np.asarray(ids, np.int64), (0, self._width - len(ids)))


class MeanOfTokens(BaseFeaturesExtractor):
    """The frozen language model as SB3 has it: read anew at every forward pass, over whole texts.

    The model stays out of the module tree: there SB3 would draw its weights anew (`ortho_init`) and turn its dropout on.

    Args:
        space: of the ids.
        encoder: whose model, layers and precision are used.
        by_length: sort a batch by length and read it in groups, so that little is padded. Nobody's default; a careful user's.
    """

    def __init__(self, space: gymnasium.spaces.Box, encoder: PretrainedEncoder, by_length: bool) -> None:
        super().__init__(space, encoder.shape[1])
        self._read = lambda **tokens: encoder.model(**tokens).last_hidden_state
        self._bfloat16, self._by_length = encoder.compute == torch.bfloat16, by_length

    @torch.no_grad()
    def forward(self, obs: Tensor) -> Tensor:
        """Features `[B, D]` of ids `[B, 512]`."""
        if not self._by_length:
            return self._features(obs)
        order = (obs > 0).sum(dim=1).argsort()
        return torch.cat([self._features(obs[group]) for group in order.split(_GROUP)])[order.argsort()]

    def _features(self, obs: Tensor) -> Tensor:
        """Mean of the last hidden states over the tokens; padding that no text of the batch needs is cut off."""
        ids = obs[:, : int((obs > 0).sum(dim=1).max())].long()
        attention = (ids > 0).long()
        with torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=self._bfloat16):
            states = self._read(input_ids=ids, attention_mask=attention)
        weights = attention[:, :, None].float()
        return cast(Tensor, (states.float() * weights).sum(dim=1) / weights.sum(dim=1))


class Meter:
    """Counts what the language model is made to read, whoever asks for it."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.rows = self.tokens = 0  # padding counts: it costs as much
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _module: torch.nn.Module, _args: tuple[Any, ...], given: dict[str, Any]) -> None:
        self.rows += len(given["input_ids"])
        self.tokens += given["input_ids"].numel()


@dataclass(frozen=True)
class Measured:
    """One measurement, per environment step."""

    steps_per_second: float
    rows_per_step: float
    tokens_per_step: float


def _from_yaml(group: str, name: str, **settings: Any) -> Any:
    """A part as the configuration has it, but for some settings."""
    return build({**to_dict(cast(DictConfig, OmegaConf.load(CONF / group / f"{name}.yaml"))), **settings}, group)


class Bench:
    """The world, the reader and both ways of learning.

    Args:
        steps: environment steps of a measurement; `lines` takes a few times as many.
        n_envs: worlds stepped together.
    """

    def __init__(self, steps: int, n_envs: int) -> None:
        seed_everything(0)
        self.steps, self.n_envs = steps, n_envs
        self.rollout = {"n_steps": min(steps, _ROLLOUT) // n_envs, "batch_size": min(steps, _BATCH)}
        self.domain: Domain = load_domain("finance", "SuitabilityDesk")
        self.encoder: PretrainedEncoder = _from_yaml("lm", "minilm")
        self.policy = HeadPolicy(self.encoder, len(self.domain.acts))
        self.policy.prepare(list(observations(self.domain.make("train"), 20)), torch.device("cpu"))
        self._warm()
        self.meter = Meter(self.encoder.model)
        self.inside = {(kind, way): self._inside(kind, way) for kind in KINDS for way in WAYS[:2]}
        self._seeds = itertools.count()

    def measure(self, kind: str, way: str) -> Measured:
        """Some iterations of learning."""
        rows, tokens = self.meter.rows, self.meter.tokens
        steps = self.steps if (kind, way) in self.inside else _LONGER * self.steps
        seconds = self._time_inside(kind, way, steps) if (kind, way) in self.inside else self._time_lines(kind, steps)
        return Measured(steps / seconds, (self.meter.rows - rows) / steps, (self.meter.tokens - tokens) / steps)

    def world(self, kind: str) -> World:
        """A fresh world; the wrapper does as one for an algorithm."""
        world = self.domain.make("train")
        return world if kind == "repeating" else cast(World, NeverRepeating(world))

    def _warm(self) -> None:
        """Reads what a long run has read long since."""
        lines = sorted({line for text in observations(self.domain.make("train"), _EXPLORE) for line in text.split("\n")})
        table = self.policy.network.lines
        table.features(np.unique(table.numbers(lines)))

    def _inside(self, kind: str, way: str) -> MaskablePPO:
        make: Callable[[], Any] = lambda: Monitor(Tokenised(self.world(kind), self.encoder.tokenizer))  # noqa: E731
        venv = VecNormalize(DummyVecEnv([make] * self.n_envs), norm_obs=False, gamma=_SHARED["gamma"])
        extractor = {"features_extractor_class": MeanOfTokens, "features_extractor_kwargs": {"encoder": self.encoder, "by_length": way != "inside"}}
        return MaskablePPO("MlpPolicy", venv, policy_kwargs=extractor, seed=0, device="cpu", **self.rollout, **_SHARED)  # type: ignore[arg-type]

    def _time_inside(self, kind: str, way: str, steps: int) -> float:
        began = time.process_time()
        self.inside[kind, way].learn(steps, reset_num_timesteps=False)
        return time.process_time() - began

    def _time_lines(self, kind: str, steps: int) -> float:
        """From the beginning of the first rollout to what would be one too many; building the parts is left out."""
        moments: list[float] = []

        def clock(env_steps: int, metrics: Mapping[str, float]) -> bool:
            moments.append(time.process_time())
            return env_steps < steps

        ours = {"learning_rate_end": None, "ent_coef_end": 0.0, "exploring_starts": 0.0, "critic_warmup": 0.0}
        algorithm = _from_yaml("algo", "ppo", total_steps=2 * steps, n_envs=self.n_envs, **self.rollout, **_SHARED, **ours)
        algorithm.learn(self.policy, lambda: self.world(kind), Learning(clock, next(self._seeds), torch.device("cpu")))
        return moments[-1] - moments[0]


def compare(bench: Bench, rounds: int) -> dict[str, Any]:
    """Every case once a round, in turn; medians over all rounds but the first."""
    taken: dict[tuple[str, str], list[Measured]] = {case: [] for case in itertools.product(KINDS, WAYS)}
    for turn in range(rounds + 1):
        for case, measured in taken.items():
            found = bench.measure(*case)
            if turn:
                measured.append(found)
    return {kind: {way: _summary({other: taken[kind, other] for other in WAYS}, way) for way in WAYS} for kind in KINDS}


def _summary(taken: Mapping[str, list[Measured]], way: str) -> dict[str, Any]:
    """Medians of a way, and how many times as fast as each way inside it is."""
    times: dict[str, Any] = {}
    for other in WAYS[:2]:
        ratios = [a.steps_per_second / b.steps_per_second for a, b in zip(taken[way], taken[other], strict=True)]
        times[other] = {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
    medians = {key: statistics.median(asdict(measured)[key] for measured in taken[way]) for key in asdict(taken[way][0])}
    return {**medians, "times_as_fast_as": times}


def table(results: Mapping[str, Any]) -> Table:
    """The results for people."""
    shown = Table(
        "observations",
        "way",
        "steps/s",
        "rows",
        "tokens",
        "x inside",
        "x sorted",
        box=SIMPLE,
        collapse_padding=True,
        pad_edge=False,
        caption="rows and tokens read for one step",
    )
    for kind, way in itertools.product(KINDS, WAYS):
        found = results[kind][way]
        numbers = found["steps_per_second"], found["rows_per_step"], found["tokens_per_step"], *(found["times_as_fast_as"][o]["median"] for o in WAYS[:2])
        shown.add_row(kind, way, *(f"{number:.{digits}f}" for number, digits in zip(numbers, (1, 2, 0, 1, 1), strict=True)))
    return shown


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.frozen_features", description="PPO steps per second, two ways.")
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds, after one that is not")
    parser.add_argument("--steps", type=int, default=_ROLLOUT // 2, help="environment steps of a measurement")
    parser.add_argument("--n-envs", type=int, default=8, help="worlds stepped together")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    asked = parser.parse_args(arguments)
    whole = next((size for size in (_ROLLOUT, _BATCH) if asked.steps > size), 1)
    if min(asked.rounds, asked.steps, asked.n_envs) < 1 or asked.steps % asked.n_envs or asked.steps % whole or _ROLLOUT % asked.n_envs:
        parser.error(f"--steps must be a multiple of --n-envs, above {_BATCH} of {_BATCH} and above {_ROLLOUT} of {_ROLLOUT}; --n-envs must divide {_ROLLOUT}")
    torch.set_num_threads(1)
    bench = Bench(asked.steps, asked.n_envs)
    results = compare(bench, asked.rounds)
    Console().print(table(results))
    if asked.out:
        machine = {"processor": platform.processor() or platform.machine(), "dtype": str(bench.encoder.compute), "torch": torch.__version__, "threads": 1}
        write_json(asked.out, {"settings": {"rounds": asked.rounds, "steps": asked.steps, "n_envs": asked.n_envs}, "machine": machine, "results": results})


if __name__ == "__main__":
    main()
