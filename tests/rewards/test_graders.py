"""Graders in their published forms: what they give, what they refuse, and how they fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import Server, Slowly

from framework.errors import ConfigError, TrainingError
from framework.lm.endpoint import Endpoint, NoAnswerError
from framework.rewards.graders import PYTHON_VARIABLE, Graders, Means, grade, read_grader, sample_of
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
    with pytest.raises(ConfigError, match="cosine needs a model that embeds texts; give reward.embedding_model"):
        read_grader(form).require(Means())
    means = Means(embed=lambda texts: np.array([[float("cat" in text), 1.0] for text in texts]))
    assert similarity("cosine", "a dog", means) == pytest.approx(1 / np.sqrt(2))


COSINE = {"type": "text_similarity", "input": "{{ sample.output_text }}", "reference": "{{ item.observation }}", "evaluation_metric": "cosine"}
VECTORS = {"a cat": [3, 4.0], "a dog": [4.0, 3.0], "a car": [-3.0, -4.0], "nothing": [0.0, 0.0]}


def embedded(request: dict[str, Any]) -> Any:
    return VECTORS.get(request["input"], (500, {}))


def similar(endpoint: Endpoint, grader: dict[str, Any] = COSINE) -> Graders:
    return Graders(grader, endpoint, "e", False, 1.0)


def turns(*replies: str, observation: str = "a cat") -> list[Step]:
    return [Step(observation, "stop", {"turn": -1.0}, {"format": 1.0}, proxy=2.0, said=reply) for reply in replies]


def test_cosine_asks_the_endpoint(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("openai")
    server.say, path = embedded, tmp_path / "answers.jsonl"
    endpoint = server.endpoint(cache=str(path), input_price=1_000.0, output_price=5_000.0, max_cost=1.0)
    rewards = similar(endpoint)
    assert rewards.score(turns("a dog")) == pytest.approx([0.96])
    assert server.asked == [{"model": "e", "input": text, "encoding_format": "float"} for text in ("a dog", "a cat")]
    assert rewards.score(turns("a dog", "a cat", "a car", "nothing")) == pytest.approx([0.96, 1.0, 0.0, 0.0])
    assert len(server.asked) == 4 == len(path.read_text().splitlines()), "a text is embedded once"
    assert rewards.metrics() == {"endpoint/calls": 4.0, "endpoint/cost": pytest.approx(0.4)}
    again = similar(server.endpoint(cache=str(path)))
    assert again.score(turns("a dog")) == pytest.approx([0.96]) and len(server.asked) == 4
    assert rewards.score([Step("a cat", "", {}, {}), Step("", "", {}, {})]).tolist() == [0.0, 1.0] and len(server.asked) == 4, "nothing is not embedded"


def test_cosine_shares_the_endpoint_s_caps_and_errors(server: Server) -> None:
    pytest.importorskip("openai")
    server.say = embedded
    rewards = similar(server.endpoint(max_calls=4, attempts=2))
    assert np.isnan(rewards.score(turns("a bat"))[0]) and len(server.asked) == 2, "tried twice"
    assert rewards.metrics() == {"other_error": 1.0, "endpoint/calls": 1.0, "endpoint/cost": 0.0}
    rewards.score(turns("a dog", "a car"))
    with pytest.raises(TrainingError, match="endpoint.max_calls is 4"):
        rewards.score(turns("nothing"))
    server.say = lambda request: (404, {})
    with pytest.raises(ConfigError, match="no model 'e'"):
        similar(server.endpoint()).score(turns("a cat"))


@pytest.mark.parametrize("said", ["text", [], [float("nan"), 1.0], ["1", "2"], None, [[1.0]]])
def test_what_is_no_embedding_is_no_answer(said: Any, server: Server) -> None:
    pytest.importorskip("openai")
    server.say = lambda request: said
    with pytest.raises(NoAnswerError, match="without an embedding"):
        server.endpoint().embed("e", ["a cat"])


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
    rewards = Graders(form, server.endpoint(), None, False, 1.0)
    turns = [Step("hello", "hello", {"turn": 1.0}, {"format": 1.0}), Step("hello", "stop", {}, {"format": 0.0}), Step("x", "x", {}, {})]
    assert rewards.score(turns) == pytest.approx([1.0, 0.0, np.nan], nan_ok=True)
    assert rewards.metrics() == {"echo": pytest.approx(2 / 3), "cost": 0.0, "invalid_variable_error": 1.0} and rewards.metrics() == {}


RATED = {"type": "score_model", "model": "m", "input": [{"role": "user", "content": "{{ item.observation }}: {{ sample.output_text }}"}]}
ASKING = {  # graders that ask a model, and how often they ask it about four replies
    "a model that scores": (RATED, 4),
    "a model that labels": ({**RATED, "type": "label_model", "labels": ["good", "bad"], "passing_labels": ["good"]}, 4),
    "one that embeds": (COSINE, 4),
    "one of two": ({"type": "multi", "graders": {"rated": RATED, "other": {**EXACT, "reference": "{{ item.proxy }}"}}, "calculate_output": "rated"}, 4),
    "both of two": ({"type": "multi", "graders": {"one": RATED, "two": {**RATED, "model": "n"}}, "calculate_output": "one + two"}, 8),
}


def answered(request: dict[str, Any]) -> Any:
    if "input" in request:
        return [1.0, float(len(request["input"]))]
    return json.dumps({"result": "good" if "LABEL" in request["messages"][0]["content"] else 0.5})


@pytest.mark.parametrize("name", ASKING)
def test_what_is_expected_is_asked_side_by_side_and_only_once(name: str, server: Server) -> None:
    pytest.importorskip("openai")
    slowly = server.say = Slowly(answered)
    form, questions = ASKING[name]
    rewards, replies = similar(server.endpoint(), form), ["a cat", "a dog", "a car", "a bat"]
    rewards.expect([Step("a cat", "stop", {}, {}, said=reply) for reply in [*replies, "a dog"]])
    assert slowly.most > 1 and len(server.asked) == questions
    for turn in turns(*replies):
        assert np.isfinite(rewards.score([turn])).all()
    assert len(server.asked) == questions, "in training, turns are scored one by one"


def test_what_is_not_known_yet_is_asked_later(server: Server) -> None:
    pytest.importorskip("openai")
    server.say = slowly = Slowly(answered)
    rewards = similar(server.endpoint(), {**RATED, "input": [{"role": "user", "content": "{{ item.proxy }} {{ item.costs.format }} {{ sample.output_text }}"}]})
    rewards.expect([Step("a cat", "stop", {}, {}, said="a dog")])
    assert not server.asked and rewards.metrics() == {"endpoint/calls": 0.0, "endpoint/cost": 0.0}, "nor is it an error"
    assert rewards.score(turns("a dog", "a cat", "a bat")).tolist() == [0.5] * 3 and slowly.most > 1
    assert all(request["messages"][-1]["content"].startswith("2.0 1.0 <text-") for request in server.asked)


def test_where_no_model_is_asked_nothing_is_expected(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    rewards = similar(server.endpoint(), EXACT)
    monkeypatch.setattr("framework.rewards.graders.text.render", lambda *_: pytest.fail("graded"))
    rewards.expect(turns("a cat"))


# Examples of the guide (platform.openai.com/docs/guides/graders) and of the reference of graders/run, as they are published there.
PERSON = {
    "type": "multi",
    "graders": {
        "name": {
            "name": "name_grader",
            "type": "text_similarity",
            "input": "{{sample.output_json.name}}",
            "reference": "{{item.name}}",
            "evaluation_metric": "fuzzy_match",
            "pass_threshold": 0.9,
        },
        "email": {
            "name": "email_grader",
            "type": "string_check",
            "input": "{{sample.output_json.email}}",
            "reference": "{{item.email}}",
            "operation": "eq",
        },
    },
    "calculate_output": "(name + email) / 2",
}
CALL = {
    "type": "multi",
    "graders": {
        "function_name": {
            "name": "function_name",
            "type": "string_check",
            "input": "get_acceptors",
            "reference": "{{sample.output_tools[0].function.name}}",
            "operation": "eq",
        },
        "arguments": {
            "name": "arguments",
            "type": "string_check",
            "input": '{"smiles": "{{item.smiles}}"}',
            "reference": "{{sample.output_tools[0].function.arguments}}",
            "operation": "eq",
        },
    },
    "calculate_output": "0.5 * function_name + 0.5 * arguments",
}
GUIDE_SCORE = {
    "type": "score_model",
    "name": "my_score_model",
    "input": [
        {
            "role": "system",
            "content": "You are an expert grader. If the reference and model answer are exact matches, output a score of 1. If they are somewhat similar in "
            "meaning, output a score in 0.5. Otherwise, give a score of 0.",
        },
        {"role": "user", "content": "Reference: {{ item.reference_answer }}. Model answer: {{ sample.output_text }}"},
    ],
    "pass_threshold": 0.5,
    "model": "o4-mini-2025-04-16",
    "range": [0, 1],
    "sampling_params": {"max_completions_tokens": 32768, "top_p": 1, "reasoning_effort": "medium"},
}
RUN_SCORE = {
    "type": "score_model",
    "name": "Example score model grader",
    "input": [
        {
            "role": "user",
            "content": [
                {
                    "type": "input_text",
                    "text": "Score how close the reference answer is to the model answer on a 0-1 scale. Return only the score.\n\n"
                    "Reference answer: {{item.reference_answer}}\n\nModel answer: {{sample.output_text}}",
                }
            ],
        }
    ],
    "model": "gpt-5-mini",
    "sampling_params": {"temperature": 1, "top_p": 1, "seed": 42},
}
GUIDE_LABEL = {
    "type": "label_model",
    "name": "my_label_model",
    "input": [
        {"role": "system", "content": "You are an expert grader."},
        {"role": "user", "content": "Classify this: {{ sample.output_text }} as either good or bad, where closer to 1 is good."},
    ],
    "passing_labels": ["good"],
    "labels": ["good", "bad"],
    "model": "o3-mini-2024-01-31",
    "sampling_params": {"max_tokens": 32768, "top_p": 1, "seed": 42, "reasoning_effort": "medium"},
}
WRATIO = """
from rapidfuzz import fuzz, utils

def grade(sample, item) -> float:
    output_text = sample["output_text"]
    reference_answer = item["reference_answer"]
    return fuzz.WRatio(output_text, reference_answer, processor=utils.default_process) / 100.0
"""
FUZZY = {"reference_answer": "fuzzy wuzzy had no hair"}
DOE = {"name": "John Doe", "email": "john.doe@gmail.com"}


@pytest.mark.parametrize(
    ("sample", "given"),
    [
        (DOE, 1.0),
        ({**DOE, "name": "Jon Doe"}, (14 / 15 + 1) / 2),  # misspelt by a letter of 15: between 0.5 and 1, since the address is right
        ({**DOE, "email": "john@gmail.com"}, 0.5),  # between 0 and 0.5
        ({**DOE, "email": "John.Doe@gmail.com"}, 0.5),
        ({"name": "John Doe"}, np.nan),
        ("John Doe", np.nan),
    ],
)
def test_the_published_example_of_several_fields(sample: object, given: float) -> None:
    pytest.importorskip("rapidfuzz")
    graded = grade(read_grader(PERSON), sample_of(json.dumps(sample)), DOE, Means())
    assert graded.reward == pytest.approx(given, nan_ok=True)


@pytest.mark.parametrize(
    ("name", "arguments", "given"),
    [
        ("get_acceptors", '{"smiles": "CCO"}', 1.0),
        ("get_acceptors", '{"smiles": "CCC"}', 0.5),
        ("get_donors", '{"smiles": "CCO"}', 0.5),
        ("get_donors", "{}", 0.0),
    ],
)
def test_the_published_example_of_a_tool_call(name: str, arguments: str, given: float) -> None:
    called = {**sample_of(""), "output_tools": [{"type": "function", "function": {"name": name, "arguments": arguments}}]}
    assert grade(read_grader(CALL), called, {"smiles": "CCO"}, Means()).reward == given
    assert list(grade(read_grader(CALL), sample_of("CCO"), {"smiles": "CCO"}, Means()).errors) == ["invalid_variable_error"], "nothing was called"


@pytest.mark.parametrize(
    ("form", "item", "sample", "result", "given", "shown"),
    [
        (GUIDE_SCORE, {"reference_answer": 1.0}, "0.9", 0.5, 0.5, "Reference: 1.0. Model answer: <text-"),
        (GUIDE_SCORE, {"reference_answer": 1.0}, "0.9", 7, 1.0, "Reference: 1.0. Model answer: <text-"),
        (RUN_SCORE, {"reference_answer": "fuzzy wuzzy was a bear"}, "fuzzy wuzzy was a bear", 1.0, 1.0, "Reference answer: fuzzy wuzzy was a bear\n\nModel"),
        (GUIDE_LABEL, {}, "0.9", "good", 1.0, "Classify this: <text-"),
        (GUIDE_LABEL, {}, "0.9", "bad", 0.0, "Classify this: <text-"),
    ],
)
def test_the_published_examples_of_models_that_grade(
    form: dict[str, Any], item: dict[str, Any], sample: str, result: object, given: float, shown: str, server: Server
) -> None:
    pytest.importorskip("openai")
    server.say = lambda request: json.dumps({"result": result, "steps": [{"description": "read both", "conclusion": "so be it"}]})
    assert grade(read_grader(form), sample_of(sample), item, Means(server.endpoint())).reward == given
    request = server.asked[0]
    assert shown in request["messages"][-1]["content"] and f">\n{sample}\n</text-" in request["messages"][-1]["content"]
    asked = {"max_completion_tokens": 32768, **form["sampling_params"]} if form is not RUN_SCORE else form["sampling_params"]
    assert {key: request[key] for key in request.keys() - {"messages"}} == {"model": form["model"]} | {
        key: value for key, value in asked.items() if key not in ("max_tokens", "max_completions_tokens")
    }


def test_images_and_sounds_are_refused() -> None:
    picture = {"type": "input_image", "image_url": "https://example.com/dog-catching-ball.png", "file_id": None, "detail": "high"}
    with pytest.raises(ConfigError, match=r"grader.input.0.content"):
        read_grader({**RUN_SCORE, "input": [{"role": "user", "content": [{"type": "input_text", "text": "Score this caption."}, picture]}]})


def test_the_published_examples_of_python(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rapidfuzz")
    monkeypatch.setenv(PYTHON_VARIABLE, "1")
    means, sample = Means(python=True, python_time_limit_s=10.0), sample_of("fuzzy wuzzy was a bear")
    plain = {"type": "python", "source": "def grade(sample, item):\n    return 1.0", "image_tag": "2025-05-08"}
    assert grade(read_grader(plain), sample, {}, means).reward == 1.0
    failed = grade(read_grader({"type": "python", "source": WRATIO}), sample, FUZZY, means)
    assert np.isnan(failed.reward) and "rapidfuzz" in failed.errors["python_grader_runtime_error"], "a source has Python's own library alone"
    twin = {"type": "text_similarity", "input": "{{ sample.output_text }}", "reference": "{{ item.reference_answer }}", "evaluation_metric": "fuzzy_match"}
    assert grade(read_grader(twin), sample, FUZZY, means).reward == pytest.approx(34 / 45)  # 17 letters of 22 and of 23 in the same order
    scope: dict[str, Any] = {}
    exec(WRATIO, scope)
    assert scope["grade"](sample, FUZZY) == pytest.approx(34 / 45), "what it says by itself"
