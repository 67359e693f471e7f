"""Tuning from the command line's parts: it learns, stops when nothing is to be gained, goes on exactly, and leaves usable files."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

sys.path.append(str(Path(__file__).resolve().parents[1] / "reliability"))
from runs import built_here, command_line, start_here

from framework.errors import CheckpointError, ConfigError, DataError, TrainingError
from framework.experiment import Interrupted


@pytest.fixture(scope="session")
def small(micro: Path, colours: Path) -> tuple[str, ...]:
    """Settings of a run that takes seconds."""
    data = ("algo=sft", f"data={colours}", f"lm.path={micro}", "lm.dtype=float32", "adapter=full", "algo.n_epochs=4", "algo.batch_size=8")
    return (*data, "algo.learning_rate=1e-2", "experiment.curve_points=4", "experiment.max_tokens=8", "tracker=none", "threads=1")


@pytest.fixture(scope="session")
def finished(small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tuned") / "run"
    start_here(directory, *small)
    return directory


def summary(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "summary.json").read_text()))


@pytest.mark.slow
def test_it_learns_and_says_by_how_much(finished: Path) -> None:
    found = summary(finished)
    assert found["tuned"]["loss"]["high"] < found["base"]["loss"]["low"]
    assert found["rows"] == {"train": 32, "validation": 4, "test": 4} and len(found["digest"]) == 64
    assert set(found["others"]) == {"nearest", "commonest"} and list(found["tuned"]["scores"]) == ["exact_match", "token_f1"]
    assert found["updates"] == 16 and found["adapter"] == "full" and found["data"] == "colours"


@pytest.mark.slow
def test_it_leaves_a_picture_a_page_and_a_card(finished: Path) -> None:
    assert (finished / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    page, card = (finished / "report.html").read_text(), (finished / "checkpoint" / "README.md").read_text()
    assert "base model" in page and "What about the" in page and "<script" not in page
    assert summary(finished)["digest"] in card and "algo=sft" in card and "| tuned |" in card
    losses = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert sum("train/loss" in line for line in losses) == 16 and sum("validation/loss" in line for line in losses) == 5


@pytest.mark.slow
def test_interrupted_and_resumed_is_uninterrupted(small: tuple[str, ...], finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, original = tmp_path / "run", torch.nn.utils.clip_grad_norm_
    seen = [0]

    def interrupting(*arguments: Any, **keywords: Any) -> Any:
        seen[0] += 1
        if seen[0] == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments, **keywords)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", interrupting)
    with pytest.raises(Interrupted, match="resume="):
        start_here(taken, *small)
    monkeypatch.undo()
    start_here(taken, f"resume={taken}")
    whole, resumed = (load_file(directory / "checkpoint" / "model.safetensors") for directory in (finished, taken))
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert summary(taken)["tuned"] == summary(finished)["tuned"]


@pytest.mark.slow
def test_over_fitting_is_told_and_stops_the_run(small: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Answers by chance can be learnt by heart, and what is learnt so is worse than nothing on other questions."""
    rng, data = random.Random(0), tmp_path / "chance.csv"
    data.write_text("Prompt,Completion\n" + "".join(f"{rng.randrange(10**6)},{rng.choice('abcdefgh')}\n" for _ in range(60)))
    start_here(tmp_path / "run", *small, f"data={data}", "algo.n_epochs=40", "experiment.curve_points=20", "experiment.patience=2")
    found = summary(tmp_path / "run")
    assert "early" in found["stopped"] and found["updates"] < 160
    assert found["best"][0] < found["updates"]
    assert "over-fitting" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_diverges_is_stopped(small: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"Try a lower algo\.learning_rate"):
        start_here(tmp_path / "run", *small, "algo.learning_rate=1e30", "algo.warmup=0")


@pytest.mark.slow
def test_rows_too_long_are_never_cut_in_silence(small: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("Prompt,Completion\n" + "".join(f"{number} {'x' * 300},yes\n" for number in range(30)), encoding="utf-8")
    with pytest.raises(DataError, match="would teach nothing"):
        start_here(tmp_path / "run", *small, f"data={path}")


@pytest.mark.slow
def test_a_checkpoint_of_another_configuration_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="of another configuration"):
        start_here(tmp_path / "run", "experiment=evaluate", f"checkpoint={finished}", "++adapter.rank=3", "adapter=lora")


@pytest.mark.slow
def test_evaluating_again_gives_the_same(finished: Path, tmp_path: Path) -> None:
    start_here(
        tmp_path / "run", "experiment=evaluate", f"checkpoint={finished}", "experiment.max_tokens=8", "threads=1"
    )  # products round by the number of threads
    assert summary(tmp_path / "run")["tuned"] == summary(finished)["tuned"]


@pytest.mark.slow
def test_answers_to_a_file(finished: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked.csv"
    asked.write_text('id,Prompt\n1,"What about, say, the big cat?"\n2,And the dog?\n', encoding="utf-8")
    start_here(tmp_path / "run", "experiment=generate", f"checkpoint={finished}", f"experiment.prompts={asked}", "experiment.max_tokens=8")
    lines = [json.loads(line) for line in (tmp_path / "run" / "completions.jsonl").read_text().splitlines()]
    assert [line["prompt"] for line in lines] == ["What about, say, the big cat?", "And the dog?"] and all(line["completion"] for line in lines)


@pytest.mark.slow
def test_answers_that_are_classes(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "asked.txt").write_text("What about the cat?\nAnd the dog?\nAnd you?\n", encoding="utf-8")
    settings = ("experiment=generate", f"checkpoint={finished}", f"experiment.prompts={tmp_path / 'asked.txt'}")
    start_here(tmp_path / "run", *settings, "experiment.allowed=[an animal, another thing]", "experiment.temperature=1.0")
    lines = [json.loads(line) for line in (tmp_path / "run" / "completions.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and {line["completion"] for line in lines} <= {"an animal", "another thing"}
    for wrong in ("[]", "[yes, '']", "[yes, 'no ']", "[1, 2]", "yes"):
        with pytest.raises(ConfigError, match=r"experiment\.allowed"):
            start_here(tmp_path / "refused", *settings, f"experiment.allowed={wrong}")


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", "Question\nhow?\n"])
def test_a_file_without_prompts_is_told(finished: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "asked.csv").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"experiment\.prompts"):
        start_here(tmp_path / "run", "experiment=generate", f"checkpoint={finished}", f"experiment.prompts={tmp_path / 'asked.csv'}")


@pytest.mark.slow
def test_chat_answers_forgets_and_compares(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    typed = iter(["What about the big cat?", "/system Be kind.", "/nonsense", "And now?", "/quit"])
    monkeypatch.setattr("builtins.input", lambda *_: next(typed))
    start_here(tmp_path / "run", "experiment=chat", f"checkpoint={finished}", "experiment.compare=true", "experiment.max_tokens=4")
    out = capsys.readouterr().out
    assert out.count("base:") == 2 and out.count("tuned:") == 2 and "There is no /nonsense" in out


@pytest.mark.slow
def test_data_files_with_faults_end_with_exit_code_2(micro: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("Prompt,Completion\na,b,c\n", encoding="utf-8")
    command = command_line("algo=sft", f"data={path}", f"lm.path={micro}", f"hydra.run.dir={tmp_path / 'run'}", "tracker=none")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and f"{path}" in done.stderr and "line 2" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_nothing_is_loaded_before_the_data_is_asked_for(small: tuple[str, ...], tmp_path: Path) -> None:
    _, run = built_here(tmp_path / "run", *small)
    run.tracker.close()
    assert not hasattr(run.lm, "model")
