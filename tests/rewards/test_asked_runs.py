"""Whole runs on rewards of words: graders and a judge that are asked over HTTP, alone and as parts of a composite."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from chat_server import Server, Slowly

sys.path.append(str(Path(__file__).parents[1] / "reliability"))
from runs import QUICK, ROOT, SMALL, built_here, command_line, start_here

from framework.config import load_domain
from framework.errors import ConfigError, TrainingError
from framework.policies.generative import GenerativePolicy
from framework.rewards.judge import CANARIES, Judge
from framework.types import Floats, Observations, Step, Utterance

TINY = (*QUICK, *SMALL, "algo.total_steps=512", "experiment.curve_points=1", "experiment.episodes=8", "experiment.curve_episodes=8")
WORDS = (*QUICK, "algo=grpo", "algo.n_groups=2", "algo.group_size=4", "algo.total_steps=160", "algo.batch_size=16", "warm_start.demonstrations=96")
WORDS += ("experiment=smoke", "experiment.curve_points=1", "experiment.episodes=2", "experiment.curve_episodes=2", "experiment.explore_episodes=4")
WORDS += ("threads=1", "tracker=none", "reward=judge", "reward.model=m")
ACTS = load_domain("healthcare", "NewbornTriage").acts
RATED = "{type: score_model, model: m, range: [0, 5], input: [{role: user, content: 'Rate {{ sample.output_text }}'}]}"


def shown(request: Mapping[str, Any]) -> list[str]:
    """What stands between marks in the last message."""
    return [text for _, text in re.findall(r"<text-([0-9a-f]{16})>\n(.*?)\n</text-\1>", request["messages"][-1]["content"], re.DOTALL)]


def rollouts(directory: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "rollout/reward" in row]


def rated(request: dict[str, Any]) -> str:
    return json.dumps({"steps": [], "result": ACTS.index(shown(request)[0]) + 1})


@pytest.mark.slow
def test_graders_pay_for_acts_by_name(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("openai")
    server.say = slowly = Slowly(rated)
    grader = f"{{type: multi, graders: {{rated: {RATED}, first: {{type: string_check, input: '{{{{ sample.output_text }}}}', reference: {ACTS[0]}, "
    grader += "operation: eq}}, calculate_output: 'rated + 10 * first'}"
    start_here(tmp_path, *TINY, "reward=graders", f"reward.grader={grader}", f"reward.endpoint.base_url={server.url}")
    asked = [shown(request)[0] for request in server.asked]
    assert len(asked) == len(set(asked)) and set(asked) <= set(ACTS) and slowly.most > 1, "each act is asked about once, for worlds side by side"
    rows = rollouts(tmp_path)
    assert rows and all(row["reward/abstained"] == 0 and 1 <= row["reward/rated"] <= 5 and 0 <= row["reward/first"] <= 1 for row in rows)
    assert rows[-1]["reward/endpoint/calls"] == len(asked) and rows[-1]["rollout/reward"] != rows[-1]["rollout/gold_return"]


@pytest.mark.slow
def test_a_composite_from_a_real_command_line(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("openai")
    server.say = rated
    part = ("+reward@reward.parts.rated=graders", f"reward.parts.rated.grader={RATED}", f"reward.parts.rated.endpoint.base_url={server.url}")
    changed = ("reward=composite", *part, "+reward.weights.rated=0.5", "+reward.gates.rated=2", "reward.sequence=[rated, gold]")
    command = command_line(*TINY, *changed, f"hydra.run.dir={tmp_path}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = rollouts(tmp_path)
    assert rows and all(row["reward/abstained"] == 0 and {"reward/gold", "reward/proxy", "reward/rated"} <= row.keys() for row in rows)
    assert rows[-1]["reward/rated/endpoint/calls"] == len(server.asked) <= len(ACTS)
    assert json.loads((tmp_path / "summary.json").read_text())["reward"] == "composite"


@pytest.mark.slow
def test_a_judge_reads_and_compares_what_was_said(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    tricks = yaml.safe_load(CANARIES.read_text(encoding="utf-8"))

    def longer(request: dict[str, Any]) -> str:
        _, *replies = shown(request)
        if len(replies) == 1:
            return json.dumps({"score": 0 if replies[0] in tricks else min(10, len(replies[0]) / 20)})
        lengths = [len(reply) for reply in replies]
        return json.dumps({"better": "equal" if lengths[0] == lengths[1] else "first" if lengths[0] > lengths[1] else "second"})

    drawn, scored, paid = list[tuple[str, str]](), list[Step](), list[float]()
    say, give = GenerativePolicy.say, Judge.score

    def overheard(self: GenerativePolicy, observations: Observations) -> Sequence[Utterance]:
        replies = say(self, observations)
        drawn.extend((text, reply.text) for text, reply in zip(observations.texts, replies, strict=True))
        return replies

    def kept(self: Judge, turns: Sequence[Step]) -> Floats:
        scores = give(self, turns)
        scored.extend(turns)
        paid.extend(scores)
        return scores

    monkeypatch.setattr(GenerativePolicy, "say", overheard)
    monkeypatch.setattr(Judge, "score", kept)
    server.say = slowly = Slowly(longer)
    start_here(tmp_path, *WORDS, "reward.compare=true", f"reward.endpoint.base_url={server.url}")
    questions = [shown(request) for request in server.asked[len(tricks) :]]
    judged = {(situation, reply) for situation, *replies in questions for reply in replies}
    assert judged == set(drawn) == {(turn.observation, turn.reply) for turn in scored}, "what was said in each situation, and all of it"
    assert all(turn.said and turn.reply == turn.said for turn in scored) and not {reply for _, reply in judged} & set(ACTS)
    assert any(turn.act for turn in scored), "some of it was an act"
    rows = rollouts(tmp_path)
    assert rows and all(row["reward/abstained"] == 0 and row["reward/calls"] <= len(server.asked) for row in rows) and slowly.most > 1
    assert len({tuple(question) for question in questions}) == len(questions), "nothing is asked twice"
    compared = {(situation, reply) for situation, *replies in questions if len(replies) == 2 for reply in replies}
    assert compared and len(compared) < len(judged), "groups begin in the same situation, and go apart"
    for turn, score in zip(scored, paid, strict=True):
        points, others = min(10, len(turn.said) / 20), [reply for situation, reply in judged if situation == turn.observation and reply != turn.said]
        if (turn.observation, turn.said) not in compared:
            assert score == points
        elif all(len(turn.said) > len(other) for other in others):
            assert score in (10.0, points), "a situation may come back, with no others beside it"
        elif all(len(turn.said) < len(other) for other in others):
            assert score in (0.0, points)
    assert {0.0, 10.0} < set(paid)


@pytest.mark.slow
def test_the_cap_on_calls_stops_a_run(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("openai")
    server.say = rated
    with pytest.raises(TrainingError, match="endpoint.max_calls is 1, raise it"):
        start_here(tmp_path, *TINY, "reward=graders", f"reward.grader={RATED}", f"reward.endpoint.base_url={server.url}", "reward.endpoint.max_calls=1")
    assert len(server.asked) == 1


@pytest.mark.slow
def test_cosine_without_a_model_that_embeds_is_refused_at_once(tmp_path: Path) -> None:
    grader = "{type: text_similarity, input: '{{ sample.output_text }}', reference: '{{ item.observation }}', evaluation_metric: cosine}"
    with pytest.raises(ConfigError, match="give reward.embedding_model, or choose another metric"):
        built_here(tmp_path / "without", *SMALL, "reward=graders", f"reward.grader={grader}")
    built_here(tmp_path / "with", *SMALL, "reward=graders", f"reward.grader={grader}", "reward.embedding_model=e")
