"""Prompts of data as a world: rows are episodes, answers are scored by the data, and a policy learns to give the ones that are paid."""

from __future__ import annotations

import csv
import html
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from speakers import CPU, algorithm

sys.path.append(str(Path(__file__).parents[1] / "reliability"))
from runs import ROOT, command_line, start_here

from framework.conformance import check_domain
from framework.datasets.source import FileSource
from framework.errors import ConfigError
from framework.evaluation import evaluate
from framework.interfaces import Learning, Policy
from framework.lm.adapters import Full
from framework.lm.causal import CausalLM
from framework.policies.generative import GenerativePolicy
from framework.rewards.graders import Graders
from framework.seeding import episode_seed
from framework.types import Ints, Observations, Reply
from framework.worlds.prompts import Answers, Prompts
from framework.worlds.rewarded import RewardedWorld, announce

ROWS = [(f"Say {word}", word, f"{number}") for number, word in enumerate(["left", "right", "stay", "up", "down", "here", "there", "on", "off", "out"] * 2)]
CHECK = "{type: string_check, input: '{{ sample.output_text }}', reference: '{{ item.completion }}', operation: eq}"
SMALL = ("experiment=smoke", "algo=grpo", "warm_start=none", "algo.n_groups=2", "algo.group_size=4", "algo.batch_size=16", "threads=1", "tracker=none")
SMALL += ("policy.max_tokens=6", "experiment.episodes=8", "experiment.curve_episodes=4", "experiment.curve_points=2")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "words.csv"
    with path.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerows([("Prompt", "Completion", "number"), *((f"{prompt} {number}", said, number) for prompt, said, number in ROWS)])
    return path


@pytest.fixture(scope="module")
def prompts(file: Path) -> Prompts:
    return Prompts(FileSource(path=str(file), validation_share=0.2, test_share=0.2))


class Parrot(Policy):
    """Says what its prompt asks for, but of some only `hm`."""

    def act(self, observations: Observations, deterministic: bool = False) -> Ints:
        return np.array([reply.act for reply in self.reply(observations, deterministic)])

    def reply(self, observations: Observations, deterministic: bool = False) -> list[Reply]:
        return [Reply(0, text.split()[1] if "left" not in text else "hm") for text in observations.texts]


def test_such_a_world_keeps_every_promise_that_needs_no_optimum(prompts: Prompts) -> None:
    assert [check for check in check_domain(prompts) if not check.passed] == []


def test_every_row_is_an_episode_once(prompts: Prompts) -> None:
    rows = prompts.source.conversations("train")
    world = prompts.make("train")
    assert [world.reset(seed=episode_seed("train", number))[0] for number in range(len(rows))] == [row.prompt[0].content for row in rows]
    assert world.reset(seed=episode_seed("train", len(rows)))[0] == rows[0].prompt[0].content, "and from the beginning again"
    assert world.reset()[0] == rows[1].prompt[0].content
    assert prompts.episodes_in("train") == len(rows) == 12


def test_gold_is_what_the_data_say_of_an_answer(prompts: Prompts) -> None:
    found = evaluate(Parrot(), prompts, "train", 100)
    due = [float("left" not in row.prompt[0].content) for row in prompts.source.conversations("train")]
    assert found.values.tolist() == due, "as many episodes as there are rows, in their order"
    assert found.score is not None and found.score.mean == pytest.approx(np.mean(due))
    assert {step.reply for episode in found.stories for step in episode.steps} > {"hm"}


def test_a_split_without_rows_is_told(file: Path) -> None:
    with pytest.raises(ConfigError, match="data: words leaves no row for the split test; give more rows"):
        Prompts(FileSource(path=str(file), validation_share=0.2, test_share=0.0)).make("test")


def test_what_needs_no_language_model_stands_beside(prompts: Prompts) -> None:
    controls = prompts.controls("test")
    assert set(controls) == {"nearest", "commonest"} and all(len(earned) == prompts.episodes_in("test") for earned in controls.values())
    assert 0 <= controls["commonest"].mean() < 0.5


def test_nothing_heard_is_no_answer(prompts: Prompts) -> None:
    world = prompts.make("train")
    world.reset(seed=0)
    world.hear("left")
    world.reset(seed=1)
    assert world.step(0)[1] == 0.0, "what was said in another episode"


def test_graders_read_the_row(prompts: Prompts, tmp_path: Path) -> None:
    node = {"type": "string_check", "input": "{{ sample.output_text }} {{ item.number }}", "operation": "eq"}
    world = prompts.make("train")
    shown, _ = world.reset(seed=0)
    graders = Graders({**node, "reference": "{{ item.completion }} {{ item.prompt }}"}, None, None, False, 1.0)  # type: ignore[arg-type]
    number, word = shown.split()[2], shown.split()[1]
    rewarded = RewardedWorld(world, graders, [])
    assert rewarded.fields() == {"number": number, "prompt": shown, "completion": word}
    for said, paid in ((word, 0.0), (f"{word} {shown[: -len(number) - 1]}", 1.0)):
        rewarded.reset(seed=0)
        announce([rewarded], [Reply(0, said)])
        assert rewarded.step(0)[1] == paid
    kept = json.loads(json.dumps(rewarded.get_state()))
    again = RewardedWorld(prompts.make("train"), graders, [])
    again.set_state(kept)
    assert again.turns == rewarded.turns and again.world.get_state() == world.get_state()


def test_a_chat_is_asked_as_the_data_have_it(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    turns = [("system", "Be brief."), ("user", "Hello"), ("assistant", "Yes?"), ("user", "Where is it?"), ("assistant", "There.")]
    path.write_text(json.dumps({"messages": [{"role": role, "content": said} for role, said in turns]}) + "\n")
    domain = Prompts(FileSource(path=str(path), validation_share=0.0, test_share=0.0))
    shown, _ = domain.make("train").reset(seed=0)
    assert shown == "system: Be brief.\nuser: Hello\nassistant: Yes?\nuser: Where is it?"
    assert [(message.role, message.content) for message in domain.speech.messages(shown)] == turns[:-1]
    assert domain.speech.answer(shown, 0, np.random.default_rng(0)) == "There."


def test_a_row_keeps_its_own_system_message(taught: Path, tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    rows = [[("system", "left"), ("user", "go"), ("assistant", "r")], [("user", "right"), ("assistant", "s")]]
    path.write_text("".join(json.dumps({"messages": [{"role": role, "content": said} for role, said in row]}) + "\n" for row in rows))
    domain = Prompts(FileSource(path=str(path), validation_share=0.0, test_share=0.0))
    policy = GenerativePolicy(CausalLM(str(taught)), domain, 3, 1.0, 1.0, 32, "left or right")
    policy.prepare((), CPU)
    domain.make("train")
    read = [policy.lm.tokenizer.decode(prompt) for prompt in policy.prompts(["system: left\nuser: go", "right"])]  # type: ignore[attr-defined]
    assert read == ["left\ngo\n", "left or right\nright\n"]


def test_a_prompt_with_two_completions_teaches_both(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("Prompt,Completion\nWhich?,one\nWhich?,two\n")
    speech, rows = Answers(), FileSource(path=str(path), validation_share=0.0, test_share=0.0).conversations("train")
    speech.learn_of(rows)
    rng = np.random.default_rng(0)
    assert {speech.answer("Which?", 0, rng) for _ in range(20)} == {"one", "two"}


@pytest.mark.slow
def test_the_answer_that_a_grader_pays_for_is_learnt(taught: Path, tmp_path: Path) -> None:
    path = tmp_path / "go.csv"
    path.write_text("Prompt,Completion\ngo,r\n")
    domain = Prompts(FileSource(path=str(path), validation_share=0.0, test_share=0.0))
    torch.manual_seed(0)
    policy = GenerativePolicy(CausalLM(str(taught), adapter=Full()), domain, 3, 1.0, 1.0, 32, None)
    policy.prepare((), CPU)
    graders = Graders({"type": "string_check", "input": "{{ sample.output_text }}", "reference": "s", "operation": "eq"}, None, None, False, 1.0)  # type: ignore[arg-type]
    accounts: list[dict[str, float]] = []
    algorithm("grpo").learn(policy, lambda: RewardedWorld(domain.make("train"), graders, accounts), Learning(lambda *_: True, 0, CPU))
    last = accounts[-64:]
    assert np.mean([account["reward"] for account in last]) >= 0.95 and np.mean([account["gold"] for account in last]) <= 0.05


@pytest.mark.slow
def test_a_run_on_data_goes_on_after_a_kill_as_if_nothing_had_been(file: Path, tmp_path: Path) -> None:
    settings = (*SMALL, f"data={file}", "reward=graders", f"reward.grader={CHECK}", "algo.total_steps=96", "experiment.curve_points=4")
    start_here(tmp_path / "whole", *settings)
    process = subprocess.Popen(
        command_line(*settings, f"hydra.run.dir={tmp_path / 'cut'}"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while not (tmp_path / "cut" / "checkpoint").exists():
        assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGKILL)
    process.wait()
    start_here(tmp_path / "cut", f"resume={tmp_path / 'cut'}")
    whole, cut = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("whole", "cut"))
    assert whole["return"] == cut["return"] and whole["curve"] == cut["curve"]
    assert whole["warnings"] == cut["warnings"] and whole["warnings"], "a model that was taught nothing cannot do without"
    assert (whole["domain"], whole["environment"], whole["reward"], whole["episodes"]) == ("data", "words", "graders", 2)
    assert set(whole["controls"]) == {"nearest", "commonest"}
    page = (tmp_path / "whole" / "report.html").read_text()
    assert whole["warnings"][0].split(";")[0] in html.unescape(page) and "nearest (no language model)" in page and "saying nothing (random) scores 0" in page
    start_here(tmp_path / "judged", "experiment=evaluate", f"checkpoint={tmp_path / 'whole'}", "experiment.episodes=8")
    assert json.loads((tmp_path / "judged" / "summary.json").read_text())["return"] == whole["return"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (("algo=ppo",), r"policy: there is one act.*use algo=grpo, ppo_text"),
        (("algo=grpo", "policy=likelihood"), "policy: data/words has one act.*policy=generative"),
        (("algo=grpo", "reward=regret"), "reward: regret is measured by an exact optimum, and data/words has none"),
    ],
)
def test_what_cannot_answer_in_words_is_refused(changed: tuple[str, ...], told: str, file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        start_here(tmp_path, "experiment=smoke", "tracker=none", *changed, f"data={file}")


@pytest.mark.slow
def test_prompts_that_leave_no_room_are_told_before_anything_is_learnt(tmp_path: Path) -> None:
    rows = [("Prompt", "Completion"), *((f"{number} " + "word " * (3_000 if number == 7 else 3), "yes") for number in range(20))]
    with (tmp_path / "long.csv").open("w", newline="") as out:
        csv.writer(out).writerows(rows)
    with pytest.raises(ConfigError, match=r"policy.max_tokens: \d+ tokens are shown and 6 more may be said, but the model can read \d+ in all"):
        start_here(tmp_path / "run", *SMALL, f"data={tmp_path / 'long.csv'}", "data.validation_share=0.05", "data.test_share=0.05")
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_preferences_have_nothing_to_answer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data: a policy answers the prompts of conversations, and PreferenceFile has none; choose one of: .*faq"):
        start_here(tmp_path, "algo=grpo", "data=preferences", "data.path=somewhere.jsonl", "tracker=none")
