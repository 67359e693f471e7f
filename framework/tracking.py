"""Where numbers go: `metrics.jsonl` always, and beside it Weights & Biases, TensorBoard or nothing.

Every tracker that can be typed after `tracker=` takes the same four parts from the caller (`directory`, `config`, `group`, `name`);
what it has besides are its settings. The packages are imported only by the tracker that needs them.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from framework.errors import MissingExtraError
from framework.interfaces import Tracker

REDACTED = "[redacted]"
_SECRET_NAME = re.compile(r"(?i)key|secret|password|token(?!iz|s\b)")  # a tokenizer is none
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")  # `api_key_env: OPENAI_API_KEY` says where the key is, not what it is
_SECRET = re.compile(r"\b(sk-[\w-]{8}|hf_\w{8}|AKIA[0-9A-Z]{8}|ghp_\w{8}|wandb_v\d_\w{8})")
_HEX_KEY = re.compile(r"\b[0-9a-f]{40}\b")  # a W&B key, or
_HEX_NAME = re.compile(r"(?i)revision|commit")  # a git commit, which a record must keep


def redact(config: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy in which every string that looks like a secret, by its name or by itself, is `[redacted]`."""
    return {key: _redact(str(key), value) for key, value in config.items()}


def _redact(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return redact(value)
    if isinstance(value, list | tuple):
        return [_redact(name, item) for item in value]
    return REDACTED if isinstance(value, str) and _is_secret(name, value) else value


def _is_secret(name: str, value: str) -> bool:
    named = _SECRET_NAME.search(name) and not _VARIABLE.fullmatch(value)
    hexadecimal = _HEX_KEY.search(value) and not _HEX_NAME.search(name)
    return bool(named or hexadecimal or _SECRET.search(value))


class Trackers(Tracker):
    """Several trackers as one."""

    def __init__(self, *trackers: Tracker) -> None:
        self.trackers = trackers

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Forwards to all."""
        for tracker in self.trackers:
            tracker.log(metrics, step)

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str | float]]) -> None:
        """Forwards to all."""
        for tracker in self.trackers:
            tracker.log_table(name, columns, rows)

    def log_checkpoint(self, directory: Path) -> None:
        """Forwards to all."""
        for tracker in self.trackers:
            tracker.log_checkpoint(directory)

    def close(self) -> None:
        """Closes all."""
        for tracker in self.trackers:
            tracker.close()


class JsonlTracker(Tracker):
    """The record of truth, kept whatever tracker is chosen: `metrics.jsonl`, a line for each `log`.

    A line is on its way to the disk when `log` returns, so a killed run keeps all it logged; a resumed run goes on in the same file.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._file = (directory / "metrics.jsonl").open("a", encoding="utf-8", buffering=1)
        self._start = time.perf_counter()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Writes `{"step", "wall_s", **metrics}`; JSON knows no NaN or infinity, so these are null."""
        numbers = {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()}
        line = {"step": int(step), "wall_s": round(time.perf_counter() - self._start, 3), **numbers}
        self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


@dataclass(eq=False)
class RunTracker(Tracker):
    """A tracker beside `metrics.jsonl`, with what every one of them is told of its run.

    Args:
        directory: of the run, where the record goes.
        config: of the run, as it was composed; it is redacted before it is stored.
        group: the sweep the run belongs to.
        name: what the run is called.
    """

    directory: Path
    config: Mapping[str, Any] = field(repr=False)
    group: str | None
    name: str


class NoTracker(RunTracker):
    """Nothing beyond `metrics.jsonl`."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Does nothing."""


@dataclass(eq=False)
class WandbTracker(RunTracker):
    """A Weights & Biases run; without a key it stays below the run's directory until `wandb sync`.

    Args:
        mode: `auto` is what WANDB_MODE says, else `online` where a key is set (WANDB_API_KEY or netrc), else `offline`.
        project: where the run is listed.
    """

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    project: str = "touchstone"

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)  # where it is missing, wandb would quietly write to /tmp
        try:
            self._run = self._init(_automatic_mode() if self.mode == "auto" else self.mode)
        except Exception as error:  # noqa: BLE001  # network, key or server: no reason to lose a training run
            reason = str(error).partition("\n")[0] or type(error).__name__
            print(f"wandb: start failed ({reason}); going on offline", file=sys.stderr)
            self._run = self._init("offline")

    def _init(self, mode: str) -> Any:
        import wandb

        settings = wandb.Settings(
            silent=True,
            init_timeout=30,  # not 90: without a network that is how long training waits
            console="off",  # what follows keeps machine, command line, console, packages and code out of the record
            host="",
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
            disable_git=True,
            disable_code=True,
        )
        run = wandb.init(
            mode=mode,  # type: ignore[arg-type]  # WANDB_MODE knows more modes than we offer
            project=self.project,
            group=self.group,
            name=self.name,
            dir=self.directory,
            config=redact(self.config),
            reinit="create_new",  # a sweep's jobs share a process, and would share a run
            save_code=False,
            settings=settings,
        )
        if mode == "online":
            print(f"wandb: {run.url}", file=sys.stderr)
        return run

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Logs at an environment step; W&B drops what comes at an earlier step than the last."""
        self._run.log(dict(metrics), step=step)

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str | float]]) -> None:
        """Logs a table at the current step."""
        import wandb

        self._run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])}, step=self._run.step)

    def log_checkpoint(self, directory: Path) -> None:
        """Logs a directory's files as the next version of the run's model; they must stay in place until they are uploaded."""
        import wandb

        directory = directory.resolve()  # `wandb sync` may be called from elsewhere
        artifact = wandb.Artifact(f"checkpoint-{self._run.id}", type="model")
        for file in sorted(path for path in directory.rglob("*") if path.is_file()):
            # "mutable" would copy every checkpoint to ~/.local/share/wandb, and offline leave it there
            artifact.add_file(str(file), name=file.relative_to(directory).as_posix(), policy="immutable")
        self._run.log_artifact(artifact, aliases=["latest", directory.name])

    def close(self) -> None:
        """Ends the run, so that the next one in this process is another."""
        self._run.finish()


def _automatic_mode() -> str:
    import wandb
    from wandb.sdk.lib import wbauth

    if mode := os.environ.get("WANDB_MODE"):
        return mode
    # W&B's own look into netrc, which knows under which names its host may stand there (they are not those of its address)
    key = os.environ.get("WANDB_API_KEY") or wbauth.read_netrc_auth(host=wandb.setup().settings.base_url)
    return "online" if key else "offline"


@dataclass(eq=False)
class TensorboardTracker(RunTracker):
    """TensorBoard events in `tensorboard` below the run's directory."""

    def __post_init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("tensorboard", "tensorboard") from error
        self._writer = SummaryWriter(str(self.directory / "tensorboard"))
        self._writer.add_text("config", f"```\n{json.dumps(redact(self.config), indent=2, default=str)}\n```")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Logs each metric as a scalar."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes out what is pending."""
        self._writer.close()
