"""Trackers keep what they are told, and no secret."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from framework.config import CONF, build
from framework.errors import ConfigError, MissingExtraError
from framework.interfaces import Tracker
from framework.tracking import REDACTED, JsonlTracker, NoTracker, TensorboardTracker, Trackers, WandbTracker, redact

CANARY = "sk-canary-0123456789"
CONFIG = {"lr": 0.1, "judge": {"api_key_env": "OPENAI_API_KEY", "note": f"Bearer {CANARY}", "password": "canary-password"}}


@pytest.fixture(autouse=True)
def clean_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No account, no settings of the person who runs the tests, and nothing written to their home."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_DIR", "WANDB_PROJECT", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def parts(directory: Path, name: str = "job") -> dict[str, Any]:
    return {"directory": directory, "config": CONFIG, "group": "sweep", "name": name}


def from_yaml(option: str, directory: Path, name: str = "job", **settings: Any) -> Any:
    return build({**OmegaConf.load(CONF / "tracker" / f"{option}.yaml"), **settings}, "tracker", **parts(directory, name))


def stored(directory: Path) -> list[list[dict[str, Any]]]:
    """The records of every W&B run below a directory, read by W&B's own offline reader."""
    files = sorted(directory.glob("wandb/*run-*/*.wandb"))
    outputs = [subprocess.run([sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(f)], capture_output=True, text=True, check=True) for f in files]
    return [[json.loads(line) for line in output.stdout.splitlines()] for output in outputs]


def of_type(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in records if record["type"] == kind]


# --- metrics.jsonl ---


def test_jsonl_line_is_readable_before_close_and_valid(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path / "run")
    tracker.log({"loss": np.float32(0.5), "kl": math.nan, "ev": -math.inf}, step=128)  # type: ignore[dict-item]
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    line = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    assert text.endswith("\n") and line.pop("wall_s") >= 0
    assert line == {"step": 128, "loss": 0.5, "kl": None, "ev": None}
    tracker.close()


def test_jsonl_of_a_resumed_run_goes_on(tmp_path: Path) -> None:
    for step in (1, 2):
        tracker = JsonlTracker(tmp_path)
        tracker.log({"loss": 1.0}, step)
        tracker.close()
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2]


def test_composite_forwards_everything_to_all(tmp_path: Path) -> None:
    class Witness(Tracker):
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def log(self, metrics: Any, step: int) -> None:
            self.seen.append((dict(metrics), step))

        def log_table(self, name: str, columns: Any, rows: Any) -> None:
            self.seen.append((name, columns, rows))

        def log_checkpoint(self, directory: Path) -> None:
            self.seen.append(directory)

        def close(self) -> None:
            self.seen.append("closed")

    witnesses = [Witness(), Witness()]
    tracker = Trackers(*witnesses)
    tracker.log({"x": 1.0}, 3)
    tracker.log_table("t", ["a"], [["b"]])
    tracker.log_checkpoint(tmp_path)
    tracker.close()
    assert all(witness.seen == [({"x": 1.0}, 3), ("t", ["a"], [["b"]]), tmp_path, "closed"] for witness in witnesses)


@pytest.mark.parametrize("option", ["none", "jsonl"])
def test_no_tracker_writes_nothing(option: str, tmp_path: Path) -> None:
    tracker = from_yaml(option, tmp_path / "run")
    tracker.log({"x": 1.0}, 0)
    tracker.log_table("t", ["a"], [["b"]])
    tracker.close()
    assert isinstance(tracker, NoTracker) and not (tmp_path / "run").exists()


# --- W&B ---


@pytest.mark.slow
def test_wandb_offline_run_holds_everything_but_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setattr(sys, "argv", ["run.py", f"judge.key={CANARY}"])
    checkpoint = tmp_path / "run" / "checkpoints" / "step-20"
    (checkpoint / "policy").mkdir(parents=True)
    (checkpoint / "policy" / "weights.safetensors").write_bytes(b"weights")
    tracker = from_yaml("wandb", tmp_path / "run")
    tracker.log({"return": 1.5}, 0)
    tracker.log({"return": 2.5, "loss": math.nan}, 20)
    tracker.log_table("episodes", ["text", "reward"], [["hello", 1.0]])
    monkeypatch.chdir(checkpoint.parent)
    tracker.log_checkpoint(Path(checkpoint.name))
    tracker.log({"return": 3.5}, 30)
    tracker.close()

    (records,) = stored(tmp_path / "run")
    (run,) = of_type(records, "run")
    assert (run["project"], run["run_group"], run["display_name"], run.get("host", "")) == ("touchstone", "sweep", "job", "")
    assert {key: run["config"]["update"][key] for key in CONFIG} == redact(CONFIG)
    history = [record["item"] for record in of_type(records, "history")]
    assert [(item["_step"], item["return"]) for item in history] == [(0, 1.5), (20, 2.5), (30, 3.5)]
    assert history[1]["episodes._type"] == "table-file"
    (table,) = (tmp_path / "run").glob("wandb/*run-*/files/media/table/episodes_*.table.json")
    assert json.loads(table.read_text()) == {"columns": ["text", "reward"], "data": [["hello", 1.0]]}
    (model,) = [artifact for artifact in of_type(records, "artifact") if artifact["type"] == "model"]
    (content,) = model["manifest"]["contents"]
    assert content["path"] == "policy/weights.safetensors" and content["local_path"] == str(checkpoint / "policy" / "weights.safetensors")
    assert set(model["aliases"]) == {"latest", "step-20"}

    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert not [file for file in files if b"canary" in file.read_bytes()]
    assert not [file for file in files if file.name in ("wandb-metadata.json", "requirements.txt", "output.log")]


@pytest.mark.slow
def test_wandb_trackers_of_one_process_are_separate_runs(tmp_path: Path) -> None:
    for number in (1, 2):
        tracker = from_yaml("wandb", tmp_path, name=f"job{number}")
        tracker.log({"number": number}, 0)
        tracker.close()
    runs = stored(tmp_path)
    assert {of_type(run, "run")[0]["display_name"]: [item["item"]["number"] for item in of_type(run, "history")] for run in runs} == {"job1": [1], "job2": [2]}


def test_wandb_mode_of_the_environment_is_honoured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tracker = from_yaml("wandb", tmp_path)
    tracker.log({"x": 1.0}, 0)
    tracker.log_table("t", ["a"], [["b"]])
    tracker.log_checkpoint(tmp_path)
    tracker.close()
    assert not stored(tmp_path)


def by_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "canary-no-key")


def by_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password canary-no-key\n")


@pytest.mark.slow
@pytest.mark.parametrize("give_key", [by_environment, by_netrc])
def test_wandb_online_that_fails_goes_on_offline(
    give_key: Callable[[Path, pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_key(tmp_path, monkeypatch)  # W&B refuses the key for its form, so the network is not asked
    tracker = from_yaml("wandb", tmp_path / "run")
    tracker.log({"x": 1.0}, 0)
    tracker.close()
    assert [line for line in capsys.readouterr().err.splitlines() if "start failed" in line and line.endswith("going on offline")]
    (records,) = stored(tmp_path / "run")
    assert of_type(records, "history")
    assert not [file for file in (tmp_path / "run").rglob("*") if file.is_file() and b"canary-no" in file.read_bytes()]


def test_wandb_unknown_mode_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tracker\.mode.*'onlin'"):
        from_yaml("wandb", tmp_path, mode="onlin")


# --- TensorBoard ---


def test_tensorboard_events_read_back(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tracker = from_yaml("tensorboard", tmp_path)
    tracker.log({"return": 1.5}, 0)
    tracker.log({"return": 2.5}, 20)
    tracker.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("return")] == [(0, 1.5), (20, 2.5)]
    (text,) = events.Tensors("config/text_summary")
    assert b'"lr": 0.1' in text.tensor_proto.string_val[0] and b"canary" not in text.tensor_proto.string_val[0]


def test_missing_tensorboard_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"\[tensorboard\]"):
        TensorboardTracker(**parts(tmp_path))


# --- secrets ---


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("api_key", "anything", True),
        ("apiKey", "anything", True),
        ("HF_TOKEN", "anything", True),
        ("client_secret", "anything", True),
        ("api_key_env", "OPENAI_API_KEY", False),
        ("api_key", "AKIAIOSFODNN7EXAMPLE", True),  # capitals, but no variable
        ("max_tokens", 512, False),
        ("tokenizer", "gpt2", False),
        ("note", CANARY, True),
        ("note", f"see {CANARY}", True),
        ("model", "hf_abcdefghijklmnop", True),
        ("note", "ghp_abcdefghijklmnop", True),
        ("note", "AKIAIOSFODNN7EXAMPLE", True),
        ("note", "0123456789abcdef" * 2 + "01234567", True),
        ("revision", "0123456789abcdef" * 2 + "01234567", False),
        ("note", "risk-averse-investor", False),
    ],
)
def test_redact_knows_secrets(name: str, value: str | int, secret: bool) -> None:
    config = {"outer": [{name: value}]}
    assert redact(config) == {"outer": [{name: REDACTED if secret else value}]}
    assert config == {"outer": [{name: value}]}


def test_config_is_not_in_the_representation(tmp_path: Path) -> None:
    assert CANARY not in repr(NoTracker(**parts(tmp_path)))
    assert CANARY not in repr(WandbTracker(**parts(tmp_path), mode="disabled"))
