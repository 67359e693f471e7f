"""`{{ item.x }}` and `{{ sample.output_text }}`: what a grader's text is filled in with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from framework.rewards.graders.grading import GradeError

_PLACE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_PATH = re.compile(r"\s*(item|sample)((?:\.[A-Za-z_][\w-]*|\[\d+\])+)\s*")
_PART = re.compile(r"\.([A-Za-z_][\w-]*)|\[(\d+)\]")


def check(template: str) -> str:
    """The template itself, if every `{{ }}` in it can be read.

    Raises:
        ValueError: one cannot; says which.
    """
    for written in _PLACE.findall(template):
        if not _PATH.fullmatch(written):
            raise ValueError(f"{{{{{written}}}}} must begin with item. or sample. and go on with names and [numbers], as in {{{{ item.answers[0].text }}}}")
    return template


def render(template: str, sample: Mapping[str, Any], item: Mapping[str, Any], wrap: Callable[[str], str] = str) -> str:
    """The template with its variables filled in; text as it is, anything else as JSON.

    Args:
        template: see `check`.
        sample: what a model said: `output_text`, and `output_json` where that is JSON.
        item: what it was asked, and what is known of it.
        wrap: what is done to the values that come from the sample.

    Raises:
        GradeError: a variable is missing, or belongs to an output that is not JSON.
    """

    def fill(match: re.Match[str]) -> str:
        space, path = _PATH.fullmatch(match[1]).groups()  # type: ignore[union-attr]
        value: Any = {"item": item, "sample": sample}[space]
        for name, index in _PART.findall(path):
            try:
                value = value[name] if name else value[int(index)]
            except (LookupError, TypeError) as error:
                unread = space == "sample" and path.startswith(".output_json") and "output_json" not in sample
                raise GradeError("sample_parse_error" if unread else "invalid_variable_error", f"{{{{{match[1]}}}}} has no value") from error
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return wrap(text) if space == "sample" else text

    return _PLACE.sub(fill, template)
