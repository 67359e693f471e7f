"""What an experiment is given, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, cast

import torch
from pydantic import Field

from framework.config import Count, differences, flat
from framework.errors import CheckpointError, ConfigError
from framework.interfaces import (
    Algorithm,
    ConversationTuning,
    DataSource,
    Domain,
    LanguageModel,
    Policy,
    PreferenceSource,
    PreferenceTuning,
    RewardModel,
    Tracker,
    Tuning,
    WarmStart,
)


@dataclass(frozen=True)
class Settings:
    """The settings at the top of the configuration."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    device: str
    threads: Count | None
    checkpoint: str | None
    resume: str | None

    def torch_device(self) -> torch.device:
        """The device asked for; `auto` takes CUDA where there is one.

        Raises:
            ConfigError: it is not there.
        """
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
        except RuntimeError as error:
            raise ConfigError("device", f"{self.device!r} is not auto, cpu, cuda, cuda:N or mps") from error
        available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.get(device.type, False)
        if not available or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
            raise ConfigError("device", f"{self.device} was asked for, but torch finds none here; use device=cpu or device=auto")
        return device


@dataclass(frozen=True)
class Run:
    """The built parts of one run, and where it is kept."""

    parts: Mapping[str, Any]  # by group: what the experiment asked for
    tracker: Tracker
    settings: Settings
    device: torch.device
    directory: Path
    config: Mapping[str, Any]  # the composed configuration, redacted
    names: Mapping[str, str]  # what was chosen in each group that the run has a part of, or that changes one
    choices: tuple[str, ...]  # the overrides of the command line, redacted

    @property
    def domain(self) -> Domain:
        """The world."""
        return cast(Domain, self.parts["domain"])

    @property
    def policy(self) -> Policy:
        """Who acts in it."""
        return cast(Policy, self.parts["policy"])

    @property
    def algorithm(self) -> Algorithm:
        """What improves the policy."""
        return cast(Algorithm, self.parts["algo"])

    @property
    def warm_start(self) -> WarmStart | None:
        """What improves it before, if anything."""
        return cast(WarmStart | None, self.parts["warm_start"])

    @property
    def reward(self) -> RewardModel:
        """What the policy is trained on."""
        return cast(RewardModel, self.parts["reward"])

    @property
    def lm(self) -> LanguageModel:
        """A model that talks."""
        return cast(LanguageModel, self.parts["lm"])

    @property
    def data(self) -> DataSource:
        """Conversations."""
        return cast(DataSource, self.parts["data"])

    @property
    def preferences(self) -> PreferenceSource:
        """Pairs of conversations, one of them liked better."""
        return cast(PreferenceSource, self.parts["data"])

    @property
    def tuning(self) -> ConversationTuning:
        """What improves the model on conversations."""
        return cast(ConversationTuning, self.parts["algo"])

    @property
    def preference_tuning(self) -> PreferenceTuning:
        """What improves the model on preferences."""
        return cast(PreferenceTuning, self.parts["algo"])

    @property
    def identity(self) -> dict[str, Any]:
        """Which run this is."""
        world = {"domain": self.domain.name, "environment": self.domain.environment} if "domain" in self.parts else {}
        rehearsal = {"rehearsal": True} if "domain" in self.parts and self.domain.rehearsal else {}
        return {**world, **rehearsal, **self.names, "seed": self.settings.seed}

    @property
    def title(self) -> str:
        """The same, for people."""
        n = self.names
        if "data" in n or "domain" not in self.parts:
            return f"{n.get('data', '')}, {n.get('algo', '')}, lm={n['lm']} ({n['adapter']}), seed {self.settings.seed}".lstrip(", ")
        i = self.identity
        paid = f", reward: {n['reward']}" if n.get("reward", "gold") != "gold" else ""
        return f"{world_of(i)}, {n.get('algo')}{paid}, lm={n['lm']} ({n['adapter']}), warm start: {n['warm_start']}, seed {i['seed']}"

    def begins_anew(self, otherwise: str = "") -> None:
        """Whether a checkpoint was given to a run that would not use it.

        Args:
            otherwise: what else may have been meant, for the message.

        Raises:
            ConfigError: it was.
        """
        if self.settings.checkpoint is not None:
            told = "is for experiments that use what a run has left (experiment=evaluate, ...), and this one begins anew"
            raise ConfigError("checkpoint", f"{told}. To go on with a run that was interrupted, give resume=DIR{otherwise}")

    def check_against(self, record: Mapping[str, Any], directory: Path, whole: bool = False) -> None:
        """Compares a checkpoint's configuration with this run's where a policy depends on it.

        Raises:
            CheckpointError: they differ; names each setting with both values.
        """
        groups = _RUN_DEPENDS_ON if whole else _POLICY_DEPENDS_ON
        ours, theirs = (flat({group: config.get(group) for group in groups}) for config in (self.config, record.get("config", {})))
        if not whole:
            ours, theirs = ({key: value for key, value in settings.items() if key not in _ONLY_JUDGED_BY} for settings in (ours, theirs))
        if told := differences(ours, theirs):
            raise CheckpointError(
                f"{directory}: of another configuration: {told}. Leave these settings out to take the checkpoint's own, or begin in another folder"
            )


def world_of(identity: Mapping[str, Any]) -> str:
    """The name of a run's world, with a mark where its results must not be taken for those of the test split."""
    return f"{identity['domain']}/{identity['environment']}{' (rehearsal)' if identity.get('rehearsal') else ''}"


_POLICY_DEPENDS_ON = ("policy", "lm", "adapter")
_ONLY_JUDGED_BY = ("policy.evaluation_temperature",)  # a finished policy may be judged by another
_RUN_DEPENDS_ON = ("seed", "domain", "data", "algo", "warm_start", "reward", "experiment", *_POLICY_DEPENDS_ON)


class Experiment(ABC):
    """A procedure over the parts of a run."""

    def needs(self, algorithm: Algorithm | Tuning) -> Mapping[str, type]:
        """The groups whose parts the procedure works with, and what each must be; nothing else is built."""
        return {}

    @abstractmethod
    def run(self, run: Run) -> bool:
        """Carries the procedure out; returns whether what it was to establish holds."""


POLICY_PARTS: Mapping[str, type] = {"domain": Domain, "policy": Policy, "warm_start": WarmStart}
LANGUAGE_PARTS: Mapping[str, type] = {"data": DataSource, "lm": LanguageModel}
PREFERENCE_PARTS: Mapping[str, type] = {"algo": PreferenceTuning, "data": PreferenceSource, "lm": LanguageModel}
"""What judging a policy takes, a language model on conversations, and one on preferences; training needs an algorithm too."""


class Stop:
    """Turns Ctrl-C, SIGTERM and SIGUSR1 into a request to stop at the next safe place; a second signal stops at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process ended by that signal."""
        return 128 + (self.signal or 0)

    def _ask(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = number
        print("\nstopping at the next safe place (again: at once)", flush=True)


class Interrupted(Exception):
    """A run that was asked to stop has stopped: with what exit code, and how to go on."""

    def __init__(self, code: int, how: str) -> None:
        super().__init__(how)
        self.code = code


def write_json(path: Path, content: Any) -> None:
    """Writes a small file whole or not at all."""
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(content, indent=1), encoding="utf-8")
    fresh.replace(path)
