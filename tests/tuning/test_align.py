"""Preferences from the command line's parts: what is liked gets more likely, a run goes on exactly, and what it leaves can be used."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

sys.path.append(str(Path(__file__).resolve().parents[1] / "reliability"))
from runs import QUICK, start_here

from framework.errors import ConfigError, DataError
from framework.experiment import Interrupted
from framework.lm.causal import CausalLM
from framework.reports.tables import departures
from framework.reports.tables.finished import rows
from framework.tuning.preferring import answers_of, common_prompt, divergence, draw, encode_pairs, liking_scores, with_prompts
from framework.types import Conversation, Liking, Message, Pair, Preference, Tokens


@pytest.fixture(scope="session")
def liked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty questions, each with a short answer that is liked and a long one that is not."""
    path = tmp_path_factory.mktemp("data") / "liked.jsonl"
    things = [f"{size} {thing}" for size in ("big", "old", "wet", "new", "odd") for thing in ("cat", "dog", "hat", "cup", "car", "box", "pen", "bed")]
    rows = [{"prompt": f"Is the {thing} red?", "chosen": "no", "rejected": f"the {thing} may be"} for thing in things]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def small(micro: Path, liked: Path) -> tuple[str, ...]:
    """Settings of a run that takes seconds."""
    data = ("algo=dpo", "data=preferences", f"data.path={liked}", f"lm.path={micro}", "lm.dtype=float32", "algo.n_epochs=2", "algo.batch_size=8")
    run = ("algo.learning_rate=3e-3", "experiment.curve_points=2", "experiment.max_tokens=6", "experiment.samples=4", "tracker=none", "threads=1")
    return (*data, *run)


@pytest.fixture(scope="session")
def finished(small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("aligned") / "run"
    start_here(directory, *small)
    return directory


def summary(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "summary.json").read_text()))


@pytest.mark.slow
def test_it_learns_what_is_liked_and_says_by_how_much(finished: Path) -> None:
    found = summary(finished)
    base, tuned = found["base"], found["tuned"]
    assert base["scores"]["reward_accuracy"]["mean"] == 0.5 and tuned["scores"]["reward_accuracy"]["mean"] == 1
    assert tuned["loss"]["high"] < base["loss"]["low"] and tuned["scores"]["reward_margin"]["low"] > 0
    assert base["scores"]["kl"] == {"mean": 0, "low": 0, "high": 0} and tuned["scores"]["kl"]["mean"] != 0
    assert found["rows"] == {"train": 32, "validation": 4, "test": 4} and found["updates"] == 8 and found["algo"] == "dpo"


@pytest.mark.slow
def test_it_leaves_a_picture_a_page_and_a_card(finished: Path) -> None:
    assert (finished / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    page, card = (finished / "report.html").read_text(), (finished / "checkpoint" / "README.md").read_text()
    assert "may be" in page and "reward margin" in page and "algo=dpo" in card and "| tuned |" in card
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert sum("train/reward_margin" in line for line in lines) == 8 and sum("validation/kl" in line for line in lines) == 3


@pytest.mark.slow
def test_evaluating_again_gives_the_same(finished: Path, tmp_path: Path) -> None:
    start_here(tmp_path / "run", "experiment=evaluate", f"checkpoint={finished}", "experiment.max_tokens=6")
    assert summary(tmp_path / "run")["tuned"] == summary(finished)["tuned"]


@pytest.mark.slow
def test_what_it_leaves_answers_and_is_exported(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "asked.txt").write_text("Is the big cat red?\n", encoding="utf-8")
    start_here(tmp_path / "said", "experiment=generate", f"checkpoint={finished}", f"experiment.prompts={tmp_path / 'asked.txt'}", "experiment.max_tokens=4")
    assert (tmp_path / "said" / "completions.jsonl").read_text().count("\n") == 1
    start_here(tmp_path / "whole", "experiment=export", f"checkpoint={finished}")
    assert (tmp_path / "whole" / "model" / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("algo=kto",), ("adapter=lora", "adapter.rank=4", "algo.learning_rate=1e-2")], ids=["dpo", "kto", "lora"])
def test_interrupted_and_resumed_is_uninterrupted(small: tuple[str, ...], more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, taken, original = tmp_path / "whole", tmp_path / "taken", torch.nn.utils.clip_grad_norm_
    start_here(whole, *small, *more)
    seen = [0]

    def interrupting(*arguments: Any, **keywords: Any) -> Any:
        seen[0] += 1
        if seen[0] == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments, **keywords)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", interrupting)
    with pytest.raises(Interrupted, match="resume="):
        start_here(taken, *small, *more)
    monkeypatch.undo()
    start_here(taken, f"resume={taken}")
    weights = [load_file(next((directory / "checkpoint").glob("*model.safetensors"))) for directory in (whole, taken)]
    assert weights[0].keys() == weights[1].keys() and all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert summary(taken)["tuned"] == summary(whole)["tuned"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("algo=dpo",), "data: must be given"),
        (("algo=dpo", "data=faq"), "Align cannot use Faq, which is no PreferenceSource; choose one of: preferences"),
        (
            ("algo=sft", "experiment=align", "data=preferences", "data.path=x"),
            "Align cannot use SFT, which is no PreferenceTuning; choose one of: dpo, kto, orpo",
        ),
        (("algo=dpo", "experiment=finetune", "data=faq"), "Finetune cannot use DPO, which is no ConversationTuning"),
        (("algo=dpo", "data=preferences", "data.path=x", "algo.loss=sigmoids"), r"algo\.loss"),
        (("algo=dpo", "data=preferences", "data.path=x", "algo.flipped=0.5"), r"algo\.flipped"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        start_here(tmp_path / "run", *arguments, "tracker=none")


@pytest.mark.slow
def test_pairs_too_long_are_never_cut_in_silence(small: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    rows = [{"prompt": f"What is {number}?", "chosen": "x" * 300, "rejected": "no"} for number in range(30)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(DataError, match="overlong=truncate"):
        start_here(tmp_path / "run", *small, f"data.path={path}")


@pytest.mark.slow
def test_completions_that_leave_no_room_are_refused(small: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"experiment\.max_tokens"):
        start_here(tmp_path / "run", *small, "experiment.max_tokens=255")


def talk(*said: str) -> Conversation:
    return Conversation([Message(role, text) for role, text in zip(("user", "assistant") * 3, said, strict=False)], "row 1")


@pytest.fixture
def lm(micro: Path) -> CausalLM:
    model = CausalLM(str(micro), "float32")
    model.place(torch.device("cpu"))
    return model


def test_what_both_sides_begin_with_is_context(lm: CausalLM) -> None:
    episode = Preference(talk("a", "go", "b", "stop"), talk("a", "go", "b", "run", "c", "stop"))
    (pair,), _ = encode_pairs(lm, [episode], "error")
    learnt = [str(lm.tokenizer.decode(side.ids[side.weights > 0])) for side in (pair.chosen, pair.rejected)]
    assert learnt == ["stop<|end|>", "run<|end|>stop<|end|>"] and answers_of(episode) == ("stop", "run\nc\nstop")
    assert [message.content for message in common_prompt(episode)] == ["a", "go", "b"] and len(with_prompts([episode, episode], 5)) == 1
    with pytest.raises(DataError, match="row 1: chosen and rejected do not begin with the same prompt"):
        common_prompt(Preference(talk("a", "go"), talk("b", "go")))


def test_scores_by_hand() -> None:
    nothing = Tokens(np.zeros(0, int), np.zeros(0))
    pairs = [Pair(nothing, nothing, label) for label in (1.0, 0.0, 0.5, 0.8)]
    liking = Liking(np.zeros(4), np.array([[3.0, 1.0], [2.0, 5.0], [9.0, 1.0], [1.0, 1.0]]), np.array([[-1.0, -2.0], [-1.0, -2.0], [0, 0], [-2.0, -1.0]]))
    found = {name: estimate.mean for name, estimate in liking_scores(liking, pairs).items()}
    assert found == {"reward_accuracy": (1 + 1 + 0.5 + 0.5) / 4, "reward_margin": (2 + 3) / 4, "likelier": (1 + 0 + 0.5 + 0) / 4}


def test_the_divergence_of_a_model_from_itself_is_nothing_and_from_another_is_not(lm: CausalLM) -> None:
    other = lm.base()
    other.place(torch.device("cpu"))
    drawn, said = draw(lm, [Preference(talk(f"{number}?", "a"), talk(f"{number}?", "b")) for number in range(40)], 12, seed=0)
    assert divergence(lm, other, drawn).mean == 0 and len(said) == 40
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.mul_(1.5)
    assert divergence(lm, other, drawn).low > 0


@pytest.mark.slow
def test_what_it_earns_in_a_world_is_looked_at_too(liked: Path, tmp_path: Path) -> None:
    run = ("algo=dpo", "data=preferences", f"data.path={liked}", "algo.n_epochs=1", "algo.batch_size=16", "algo.learning_rate=1e-3", "lm.dtype=float32")
    run += ("experiment.curve_points=2", "experiment.max_tokens=6", "experiment.samples=4", "tracker=none", "threads=1", *QUICK)
    start_here(tmp_path / "run", *run, "policy=generative", "policy.max_tokens=4", "experiment.climb_episodes=2")
    path = summary(tmp_path / "run")["climbed"]["path"]
    assert [updates for updates, _ in path] == [0, 1, 2] and all(set(gone) == {"kl", "gold"} for _, gone in path)
    assert path[0][1]["kl"] == 0 < path[2][1]["kl"], "it has gone nowhere before it has learnt anything"
    (row,) = [row for row in rows([tmp_path / "run"]) if row.runs]
    looks, height, _ = departures.sheets([row])
    assert [line[2:4] for line in looks.lines] == [[str(updates), f"{gone['kl']:.3f}"] for updates, gone in path] and len(height.lines) == 1
    departures.draw([row], tmp_path / "climbed.png")
    assert (tmp_path / "climbed.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="policy"):
        start_here(tmp_path / "named", *run, "experiment.climb_episodes=2")
