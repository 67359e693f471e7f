"""What graders share: the sample and item they look at, what they may use, and how they fail."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from framework.errors import ConfigError
from framework.lm.endpoint import Endpoint, parse_object
from framework.types import Floats

PYTHON_VARIABLE = "TOUCHSTONE_PYTHON_GRADERS"
"""Environment variable that must be `1`, besides the setting, before a grader's Python source is run."""


class GradeError(Exception):
    """One sample cannot be graded; `kind` is the published name of the error."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Means:
    """What graders may use.

    Attributes:
        endpoint: of the models that score and label; None: there is none.
        embed: texts to rows of `[n, D]`, for the cosine; None: there is none.
        python: whether sources of Python may be run, as far as the settings go.
        python_time_limit_s: wall clock, for one of them.
        python_packages: installed packages that they may import beside Python's own, by the names that they are imported by.
    """

    endpoint: Endpoint | None = None
    embed: Callable[[Sequence[str]], Floats] | None = None
    python: bool = False
    python_time_limit_s: float = 120.0
    python_packages: Sequence[str] = ()


class Grader(BaseModel, ABC):
    """A published form of grader. Its fields are the form."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""

    @property
    def asks(self) -> bool:
        """Whether a model elsewhere is asked, so that many samples are better graded side by side."""
        return False

    def require(self, means: Means) -> None:
        """Called once before grading.

        Raises:
            UserError: something that this grader cannot do without is missing or not allowed.
        """

    @abstractmethod
    def grade(self, sample: Mapping[str, Any], item: Mapping[str, Any], means: Means) -> float:
        """The grade of one sample.

        Raises:
            GradeError: there is none.
        """


def require_python(means: Means) -> None:
    """Whether both have been said: the setting and the variable.

    Raises:
        ConfigError: they have not.
    """
    if not means.python or os.environ.get(PYTHON_VARIABLE) != "1":
        raise ConfigError(
            "grader",
            "a python grader runs code from a file on this machine, within limits but in no sandbox. If you trust it, "
            f"set reward.python=true and the environment variable {PYTHON_VARIABLE}=1",
        )


def sample_of(text: str) -> dict[str, Any]:
    """A model's output as graders see it: `output_text`, `choices`, and `output_json` where it is a JSON object."""
    found = parse_object(text)
    spoken: dict[str, Any] = {"output_text": text, "choices": [{"message": {"role": "assistant", "content": text}}]}
    return spoken if found is None else {**spoken, "output_json": found}
