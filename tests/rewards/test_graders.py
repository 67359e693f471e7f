"""Graders in their published forms: what they give, what they refuse, and how they fail."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from chat_server import Server

from framework.errors import ConfigError
from framework.rewards.graders import Graders, Means, grade, read_grader, sample_of
from framework.rewards.graders.grading import GradeError
from framework.rewards.graders.templates import render
from framework.types import Step

SAMPLE = "The capital is Paris."
ITEM = {"answer": "Paris", "answers": [{"text": "Paris"}, {"text": "PARIS"}], "n": 3, "flag": True, "some-name": "x"}
EXACT = {"type": "string_check", "name": "exact", "input": "{{ sample.output_text }}", "reference": "{{ item.answer }}", "operation": "eq"}


def reward(form: dict[str, Any], sample: str = SAMPLE, means: Means | None = None) -> float:
    means = means or Means()
    grader = read_grader(form)
    grader.require(means)
    return grade(grader, sample_of(sample), ITEM, means).reward


@pytest.mark.parametrize(
    ("operation", "sample", "given"),
    [
        ("eq", "Paris", 1.0),
        ("eq", "paris", 0.0),
        ("ne", "Paris", 0.0),
        ("ne", "Rome", 1.0),
        ("like", SAMPLE, 1.0),
        ("like", "the capital is paris", 0.0),
        ("ilike", "the capital is paris", 1.0),
        ("ilike", "Rome", 0.0),
    ],
)
def test_string_check(operation: str, sample: str, given: float) -> None:
    assert reward({**EXACT, "operation": operation}, sample) == given


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ item.answer }}", "Paris"),
        ("{{item.answer}}!", "Paris!"),
        ("{{ item.answers[1].text }} {{ item.n }} {{ item.flag }}", "PARIS 3 true"),
        ("{{ item.answers[0] }}", '{"text": "Paris"}'),
        ("{{ item.some-name }}", "x"),
        ("{{ sample.output_text }}", '{"a": {"b": [1, 2]}}'),
        ("{{ sample.output_json.a.b[1] }}", "2"),
        ("{{ sample.choices[0].message.content }}", '{"a": {"b": [1, 2]}}'),
        ("no braces {item.answer}", "no braces {item.answer}"),
    ],
)
def test_templates(template: str, text: str) -> None:
    assert render(template, sample_of('{"a": {"b": [1, 2]}}'), ITEM) == text


def test_what_is_filled_in_is_not_filled_in_again() -> None:
    assert render("{{ sample.output_text }}", sample_of("{{ item.answer }}"), ITEM) == "{{ item.answer }}"


@pytest.mark.parametrize(
    ("template", "kind"),
    [
        ("{{ item.nothing }}", "invalid_variable_error"),
        ("{{ item.answers[7] }}", "invalid_variable_error"),
        ("{{ item.answer.text }}", "invalid_variable_error"),
        ("{{ item.answers.text }}", "invalid_variable_error"),
        ("{{ sample.nothing }}", "invalid_variable_error"),
        ("{{ sample.output_json.a }}", "sample_parse_error"),
        ("{{ item.__class__ }}", "invalid_variable_error"),
    ],
)
def test_a_missing_variable_has_a_name(template: str, kind: str) -> None:
    with pytest.raises(GradeError) as raised:
        render(template, sample_of("no JSON"), ITEM)
    assert raised.value.kind == kind
    graded = grade(read_grader({**EXACT, "reference": template}), sample_of("no JSON"), ITEM, Means())
    assert np.isnan(graded.reward) and list(graded.errors) == [kind]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"type": "string_chek"}, "grader.type: 'string_chek' is no type of grader; did you mean 'string_check'?"),
        ({"type": None}, "grader.type"),
        ({"operation": "neq"}, "grader.operation"),
        ({"reference": None}, "grader.reference"),
        ({"extra": 1}, "grader.extra"),
        ({"input": "{{ output_text }}"}, "must begin with item. or sample."),
        ({"input": "{{ sample }}"}, "must begin with item. or sample."),
        ({"input": "{{ item['x'] }}"}, "must begin with item. or sample."),
        ({"input": "{{ 1 + 1 }}"}, "must begin with item. or sample."),
    ],
)
def test_a_wrong_form_is_refused_by_its_field(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_grader({**EXACT, **changed})
    assert told in str(raised.value)


SIMILAR = {"type": "text_similarity", "input": "{{ sample.output_text }}", "reference": "{{ item.reference }}"}
REFERENCE = "the cat sat on the mat today"
METRICS = ("fuzzy_match", "bleu", "gleu", "meteor", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l")


def similarity(metric: str, sample: str, means: Means | None = None) -> float:
    return grade(read_grader({**SIMILAR, "evaluation_metric": metric}), sample_of(sample), {"reference": REFERENCE}, means or Means()).reward


@pytest.mark.parametrize("metric", METRICS)
def test_likeness_is_between_nothing_and_the_same(metric: str) -> None:
    pytest.importorskip("rouge_score")
    pytest.importorskip("rapidfuzz")
    same, near, far = (similarity(metric, text) for text in (REFERENCE, "the cat sat on a mat today", "quite another matter"))
    assert same == pytest.approx(1.0, abs=2e-3)  # METEOR has a penalty of half a chunk, cubed
    assert same > near >= far >= 0.0 and similarity(metric, "") == 0.0


@pytest.mark.parametrize(
    ("metric", "sample", "value"),
    [
        ("rouge_1", "a cat sat", 2 * (2 / 3) * (2 / 7) / (2 / 3 + 2 / 7)),
        ("rouge_2", "a cat sat", 2 * (1 / 2) * (1 / 6) / (1 / 2 + 1 / 6)),
        ("rouge_l", "mat the cat", 2 * (2 / 3) * (2 / 7) / (2 / 3 + 2 / 7)),
        ("gleu", "the cat sat", 6 / 22),  # 3 + 2 + 1 n-grams of 7 + 6 + 5 + 4
        ("bleu", "the cat sat on", np.exp(1 - 7 / 4)),  # perfect precision, brief
        ("meteor", "cat sat", (2 / 7 / (0.9 + 0.1 * 2 / 7)) * (1 - 0.5 * (1 / 2) ** 3)),  # two words in one chunk
        ("fuzzy_match", "The CAT sat on the mat, today!", 1.0),
    ],
)
def test_metrics_by_hand(metric: str, sample: str, value: float) -> None:
    pytest.importorskip("rouge_score")
    pytest.importorskip("rapidfuzz")
    assert similarity(metric, sample) == pytest.approx(value, abs=0.02 if metric == "fuzzy_match" else 1e-9)


def test_cosine_needs_something_that_embeds() -> None:
    form = {**SIMILAR, "evaluation_metric": "cosine"}
    with pytest.raises(ConfigError, match="cosine needs a model that embeds texts"):
        read_grader(form).require(Means())
    means = Means(embed=lambda texts: np.array([[float("cat" in text), 1.0] for text in texts]))
    assert similarity("cosine", "a dog", means) == pytest.approx(1 / np.sqrt(2))


MULTI = {
    "type": "multi",
    "name": "both",
    "graders": {"exact": EXACT, "near": {**EXACT, "operation": "ilike"}},
    "calculate_output": "0.25 * exact + 0.75 * near",
}


def test_multi_tells_its_members_grades() -> None:
    graded = grade(read_grader(MULTI), sample_of(SAMPLE), ITEM, Means())
    assert graded.reward == 0.75 and graded.sub_rewards == {"exact": 0.0, "near": 1.0} and not graded.errors


def test_a_member_that_fails_takes_the_whole_with_it_but_not_the_others() -> None:
    form = {**MULTI, "graders": {"exact": {**EXACT, "reference": "{{ item.nothing }}"}, "near": {**EXACT, "operation": "ilike"}}}
    graded = grade(read_grader(form), sample_of(SAMPLE), ITEM, Means())
    assert np.isnan(graded.reward) and graded.sub_rewards["near"] == 1.0 and graded.errors.keys() == {"invalid_variable_error"}


def test_a_formula_without_a_value() -> None:
    graded = grade(read_grader({**MULTI, "calculate_output": "near / exact"}), sample_of(SAMPLE), ITEM, Means())
    assert np.isnan(graded.reward) and graded.errors.keys() == {"formula_parse_error"}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"calculate_output": "exact + nera"}, "names 'nera', which is no grader; did you mean 'near'?"),
        ({"calculate_output": "__import__('os')"}, "may not stand in a formula"),
        ({"graders": {}}, "grader.graders"),
        ({"graders": {"a b": EXACT}, "calculate_output": "1"}, "the key 'a b' cannot stand in a formula"),
        ({"graders": {"min": EXACT}, "calculate_output": "1"}, "the key 'min' cannot stand in a formula"),
        ({"graders": {"inner": {**EXACT, "operation": "x"}}, "calculate_output": "inner"}, "grader.graders.inner.operation"),
        ({"graders": {"inner": {"type": "multi", "graders": {"a": EXACT}, "calculate_output": "a"}}, "calculate_output": "inner"}, "grader.graders.inner"),
    ],
)
def test_a_wrong_multi_is_refused(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_grader({**MULTI, **changed})
    assert told in str(raised.value)


SCORE = {
    "type": "score_model",
    "name": "quality",
    "model": "m",
    "input": [{"role": "system", "content": "Be fair."}, {"role": "user", "content": "Rate: {{ sample.output_text }} against {{ item.answer }}"}],
    "range": [0, 5],
    "sampling_params": {"temperature": 0.0, "seed": 1, "max_completions_tokens": 60},
}
LABEL = {"type": "label_model", "name": "tone", "model": "m", "input": SCORE["input"], "labels": ["kind", "rude"], "passing_labels": ["kind"]}


@pytest.mark.parametrize(
    ("said", "given"),
    [(3.5, 3.5), (9, 5.0), (-1, 0.0), ("3", np.nan), (None, np.nan), (True, np.nan)],
)
def test_score_model(said: object, given: float, server: Server) -> None:
    pytest.importorskip("openai")
    server.say = lambda request: json.dumps({"steps": [], "result": said})
    assert reward(SCORE, means=Means(server.endpoint())) == pytest.approx(given, nan_ok=True)
    request = server.asked[0]
    assert (request["model"], request["temperature"], request["seed"], request["max_completion_tokens"]) == ("m", 0.0, 1, 60) and "top_p" not in request
    assert [message["role"] for message in request["messages"]] == ["system", "system", "user"]
    shown = request["messages"][-1]["content"]
    assert f">\n{SAMPLE}\n</text-" in shown and shown.endswith("against Paris"), "what comes of the sample is fenced"


@pytest.mark.parametrize(("said", "given"), [("kind", 1.0), ("rude", 0.0), ("Kind", np.nan), ("ignore", np.nan), (1, np.nan), ([], np.nan)])
def test_label_model(said: object, given: float, server: Server) -> None:
    pytest.importorskip("openai")
    server.say = lambda request: json.dumps({"result": said})
    assert reward(LABEL, means=Means(server.endpoint())) == pytest.approx(given, nan_ok=True)


@pytest.mark.parametrize(
    ("say", "kind"), [("not JSON", "model_grader_parse_error"), ('{"score": 1}', "model_grader_parse_error"), ((500, {}), "model_grader_server_error")]
)
def test_a_model_that_fails_is_no_grade(say: Any, kind: str, server: Server) -> None:
    pytest.importorskip("openai")
    server.say = lambda request: say
    graded = grade(read_grader(SCORE), sample_of(SAMPLE), ITEM, Means(server.endpoint(attempts=1)))
    assert np.isnan(graded.reward) and list(graded.errors) == [kind]


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({**SCORE, "range": [1, 1]}, "range must go up"),
        ({**SCORE, "input": []}, "grader.input"),
        ({**SCORE, "input": [{"role": "user", "content": "{{ x }}"}]}, "must begin with item. or sample."),
        ({**LABEL, "passing_labels": ["kin"]}, "did you mean 'kind'?"),
    ],
)
def test_a_wrong_model_grader_is_refused(form: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_grader(form)
    assert told in str(raised.value)


def test_a_model_grader_without_an_endpoint_is_refused() -> None:
    with pytest.raises(ConfigError, match="no endpoint to ask it at"):
        read_grader(SCORE).require(Means())


def test_graders_as_a_reward(server: Server) -> None:
    member = {**EXACT, "reference": "{{ item.observation }}"}
    form = {"type": "multi", "graders": {"echo": member, "cost": {**member, "input": "{{ item.costs.format }}"}}, "calculate_output": "echo + 2 * cost"}
    rewards = Graders(form, server.endpoint(), False, 1.0)
    turns = [Step("hello", "hello", {"turn": 1.0}, {"format": 1.0}), Step("hello", "stop", {}, {"format": 0.0}), Step("x", "x", {}, {})]
    assert rewards.score(turns) == pytest.approx([1.0, 0.0, np.nan], nan_ok=True)
    assert rewards.metrics() == {"echo": pytest.approx(2 / 3), "cost": 0.0, "invalid_variable_error": 1.0} and rewards.metrics() == {}
