"""Graders that ask a language model: `score_model` and `label_model`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from framework.errors import ConfigError, near
from framework.lm.endpoint import FENCED, NoAnswerError, fence, parse_object
from framework.rewards.graders.grading import GradeError, Grader, Means
from framework.rewards.graders.templates import render
from framework.rewards.graders.text import Template
from framework.types import Message

_SCORE = 'Answer with nothing but a JSON object {{"steps": [{{"description": "...", "conclusion": "..."}}], "result": NUMBER}}, NUMBER in {low:g} to {high:g}.'
_LABEL = 'Answer with nothing but a JSON object {{"steps": [{{"description": "...", "conclusion": "..."}}], "result": LABEL}}, LABEL one of {labels}.'


class InputText(BaseModel):
    """The content of a message, as the protocol wraps it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["input_text", "text", "output_text"]
    text: Template


class GraderMessage(BaseModel):
    """A message to the model that grades; what comes of the sample is fenced in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: Template | InputText | list[Template | InputText]
    type: Literal["message"] = "message"

    def filled(self, sample: Mapping[str, Any], item: Mapping[str, Any]) -> str:
        """Its text."""
        parts = self.content if isinstance(self.content, list) else [self.content]
        templates = [part if isinstance(part, str) else part.text for part in parts]
        return "\n".join(render(template, sample, item, wrap=partial(fence, about=template)) for template in templates)


class SamplingParams(BaseModel):
    """How the model that grades is sampled."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int | None = None
    top_p: float | None = None
    temperature: float | None = None
    max_completions_tokens: int | None = None  # the published spelling
    max_tokens: int | None = None  # that of a published example
    reasoning_effort: str | None = None

    def request(self) -> dict[str, Any]:
        """The same as fields of a request."""
        most = self.max_tokens if self.max_completions_tokens is None else self.max_completions_tokens
        return {"max_completion_tokens": most, **self.model_dump(exclude={"max_completions_tokens", "max_tokens"})}


class ModelGrader(Grader):
    """What both kinds share: a model, and messages to it."""

    model: str
    input: list[GraderMessage] = Field(min_length=1)
    sampling_params: SamplingParams = SamplingParams()

    @property
    def asks(self) -> bool:
        """See `Grader`."""
        return True

    def require(self, means: Means) -> None:
        """See `Grader`."""
        if means.endpoint is None:
            raise ConfigError("grader", f"{self.model!r} has to be asked, and there is no endpoint to ask it at; give reward.endpoint.base_url")

    def ask(self, form: str, sample: Mapping[str, Any], item: Mapping[str, Any], means: Means) -> Any:
        """The `result` of the model's answer.

        Raises:
            GradeError: no answer, or none in form.
        """
        assert means.endpoint is not None
        messages = [Message(message.role, message.filled(sample, item)) for message in self.input]
        try:
            said = means.endpoint.ask(self.model, [Message("system", f"{FENCED}\n\n{form}"), *messages], **self.sampling_params.request())
        except NoAnswerError as error:
            raise GradeError("model_grader_server_error", str(error)) from error
        found = parse_object(said)
        if found is None or "result" not in found:
            raise GradeError("model_grader_parse_error", "the answer is not the JSON object asked for")
        return found["result"]


class ScoreModel(ModelGrader):
    """A number that a model gives, cut off at the ends of its range as published; an answer without a number is no grade."""

    type: Literal["score_model"]
    range: tuple[float, float] = (0.0, 1.0)
    pass_threshold: float | None = None  # of evaluations; the grade is the number itself

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.range[0] < self.range[1]:
            raise ValueError(f"range must go up, not {list(self.range)}")
        return self

    def grade(self, sample: Mapping[str, Any], item: Mapping[str, Any], means: Means) -> float:
        """See `Grader`."""
        low, high = self.range
        result = self.ask(_SCORE.format(low=low, high=high), sample, item, means)
        if isinstance(result, bool) or not isinstance(result, (int, float)) or not math.isfinite(result):
            raise GradeError("model_grader_parse_error", f"{result!r} is no number")
        return float(min(max(result, low), high))


class LabelModel(ModelGrader):
    """1 if the label that a model gives is one that passes, else 0."""

    type: Literal["label_model"]
    labels: list[str] = Field(min_length=1)
    passing_labels: list[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _known(self) -> Self:
        for label in self.passing_labels:
            if label not in self.labels:
                raise ValueError(f"passing label {label!r} is none of the labels{near(label, self.labels)}")
        return self

    def grade(self, sample: Mapping[str, Any], item: Mapping[str, Any], means: Means) -> float:
        """See `Grader`."""
        result = self.ask(_LABEL.format(labels=", ".join(map(repr, self.labels))), sample, item, means)
        if result not in self.labels:
            raise GradeError("model_grader_parse_error", f"{result!r} is none of the labels")
        return float(result in self.passing_labels)
