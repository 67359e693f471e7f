"""From a grader's published JSON to a grader, and from a grader and a sample to a grade.

    grader = read_grader({"type": "string_check", "name": "exact", "input": "{{ sample.output_text }}", "reference": "{{ item.answer }}", "operation": "eq"})
    grade(grader, sample_of("42"), {"answer": "42"}, Means()).reward  # 1.0

`multi` computes its formula over the grades of its members; it holds no other `multi`.
"""

from __future__ import annotations

import keyword
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from framework.errors import ConfigError, near
from framework.rewards.graders.formula import FUNCTIONS, Formula
from framework.rewards.graders.grading import GradeError, Grader, Means
from framework.rewards.graders.model import LabelModel, ScoreModel
from framework.rewards.graders.python import PythonGrader
from framework.rewards.graders.text import StringCheck, TextSimilarity

Single = Annotated[StringCheck | TextSimilarity | PythonGrader | ScoreModel | LabelModel, Field(discriminator="type")]
TYPES = ("string_check", "text_similarity", "python", "score_model", "label_model", "multi")


class Multi(Grader):
    """A formula over the grades of several graders, by their keys."""

    type: Literal["multi"]
    graders: dict[str, Single] = Field(min_length=1)
    calculate_output: str

    @model_validator(mode="after")
    def _readable(self) -> Self:
        for key in self.graders:
            if not key.isidentifier() or keyword.iskeyword(key) or key in FUNCTIONS:
                raise ValueError(f"the key {key!r} cannot stand in a formula; use letters, digits and _, and no function's name")
        self.formula  # noqa: B018  read now, so that a mistake in it is found now
        return self

    @cached_property
    def formula(self) -> Formula:
        """The formula as it is computed."""
        return Formula(self.calculate_output, self.graders)

    @property
    def asks(self) -> bool:
        """See `Grader`."""
        return any(grader.asks for grader in self.graders.values())

    def require(self, means: Means) -> None:
        """See `Grader`."""
        for grader in self.graders.values():
            grader.require(means)

    def grade(self, sample: Mapping[str, Any], item: Mapping[str, Any], means: Means) -> float:
        """See `Grader`."""
        return self.combine({key: grader.grade(sample, item, means) for key, grader in self.graders.items()})

    def combine(self, grades: Mapping[str, float]) -> float:
        """The formula's value.

        Raises:
            GradeError: it has none.
        """
        try:
            return self.formula(grades)
        except (ArithmeticError, ValueError) as error:
            raise GradeError("formula_parse_error", f"{self.calculate_output!r}: {error}") from error


_FORM: TypeAdapter[Grader] = TypeAdapter(Annotated[Single | Multi, Field(discriminator="type")])


@dataclass(frozen=True)
class Graded:
    """What came of a grader and a sample."""

    reward: float  # NaN: no grade
    sub_rewards: Mapping[str, float] = field(default_factory=dict)  # of a multi grader's members
    errors: Mapping[str, str] = field(default_factory=dict)  # published names of errors, with what happened


def read_grader(form: Mapping[str, Any], place: str = "grader") -> Grader:
    """Checks a grader's JSON.

    Raises:
        ConfigError: an unknown type, a missing, unknown or wrong field, a template or formula that cannot be read; names the field.
    """
    if form.get("type") not in TYPES:
        raise ConfigError(f"{place}.type", f"{form.get('type')!r} is no type of grader{near(str(form.get('type')), TYPES)}")
    try:
        return _FORM.validate_python(form)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(f".{part}" for part in first["loc"] if part not in TYPES)
        raise ConfigError(f"{place}{where}", first["msg"].removeprefix("Value error, ")) from error


def members(grader: Grader) -> Mapping[str, Grader]:
    """The graders that a multi grader combines, by their keys; of another, itself."""
    return grader.graders if isinstance(grader, Multi) else {"": grader}


def grade(grader: Grader, sample: Mapping[str, Any], item: Mapping[str, Any], means: Means) -> Graded:
    """Grades a sample; a multi grader's members are all graded, whichever of them fails."""
    grades, errors = {}, {}
    for key, member in members(grader).items():
        try:
            grades[key] = member.grade(sample, item, means)
        except GradeError as error:
            grades[key] = math.nan
            errors[error.kind] = f"{key}: {error}".removeprefix(": ")
    if not isinstance(grader, Multi):
        return Graded(grades[""], {}, errors)
    try:
        return Graded(math.nan if errors else grader.combine(grades), grades, errors)
    except GradeError as error:
        return Graded(math.nan, grades, {error.kind: str(error)})
