"""Formulas of multi graders: what they compute, and what may not stand in them."""

from __future__ import annotations

import math

import pytest

from framework.rewards.graders.formula import Formula

VALUES = {"a": 0.5, "b": 2.0, "quality": 3.0}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a", 0.5),
        ("0.6 * a + 0.4 * quality", 1.5),
        ("1 + 2 * 3 ^ 2", 19.0),  # ^ binds tighter than *
        ("2 ^ 3 ^ 2", 512.0),  # and to the right
        ("-b ^ 2", -4.0),
        ("(a + b) / quality - +1", 2.5 / 3 - 1),
        ("min(a, b, quality) + max(a, b)", 2.5),
        ("abs(-b) + floor(1.9) + ceil(1.1)", 5.0),
        ("exp(0) + sqrt(4) + log(exp(1))", 4.0),
        (" a\n", 0.5),
        ("1e-3", 0.001),
        ("0 ^ 0", 1.0),
    ],
)
def test_values(text: str, value: float) -> None:
    assert Formula(text, VALUES)(VALUES) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("__import__('os').system('x')", "may not stand"),
        ("a.__class__", "may not stand"),
        ("a[0]", "may not stand"),
        ("(lambda: 1)()", "may not stand"),
        ("[x for x in (1, 2)]", "may not stand"),
        ("open('x')", "may not stand"),
        ("eval(a)", "may not stand"),
        ("min", "names 'min', which is no grader"),
        ("qualty", "did you mean 'quality'?"),
        ("'text'", "may not stand"),
        ("f'{a}'", "may not stand"),
        ("True", "may not stand"),
        ("None", "may not stand"),
        ("1j", "may not stand"),
        ("a if b else quality", "may not stand"),
        ("a and b", "may not stand"),
        ("a < b", "may not stand"),
        ("a % b", "may not stand"),
        ("a // b", "may not stand"),
        ("a @ b", "may not stand"),
        ("~a", "may not stand"),
        ("not a", "may not stand"),
        ("a ** 2", "a power is written ^"),
        ("(a := 1)", "may not stand"),
        ("a = 1", "is no formula"),
        ("import os", "is no formula"),
        ("a; b", "is no formula"),
        ("", "is no formula"),
        ("a +", "is no formula"),
        ("a b", "is no formula"),
        ("\x00", "is no formula"),
        ("min(a)", "min takes two arguments or more, not 1"),
        ("sqrt(a, b)", "sqrt takes one argument, not 2"),
        ("log()", "log takes one argument, not 0"),
        ("max(*a)", "max takes two"),
        ("max(a, *b)", "may not stand"),
        ("max(a, b, key=abs)", "may not stand"),
        ("(" * 400 + "a" + ")" * 400, "is no formula"),
        ("a+" * 600 + "a", "at most 1000 characters"),
        ("9" * 400, "too large"),
        ("1e999", "too large"),
    ],
)
def test_what_is_no_formula_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match="^") as raised:
        Formula(text, VALUES)
    assert told in str(raised.value) and len(str(raised.value)) < 300


@pytest.mark.parametrize("text", ["1 / (a - a)", "sqrt(0 - b)", "log(0)", "9 ^ 9 ^ 9", "exp(1000)", "(0 - 8) ^ 0.5", "floor((0 - 8) ^ 0.5)", "nothing"])
def test_what_has_no_value_says_so(text: str) -> None:
    with pytest.raises((ArithmeticError, ValueError)):
        Formula(text, {**VALUES, "nothing": 0.0})({**VALUES, "nothing": math.nan})


def test_long_formulas_are_no_trouble() -> None:
    assert Formula("a" + "+a" * 400, VALUES)(VALUES) == pytest.approx(200.5)
    assert Formula("-" * 800 + "a", VALUES)(VALUES) == 0.5 if _deep() else True


def _deep() -> bool:
    """Whether Python reads so many signs in a row."""
    try:
        Formula("-" * 800 + "a", VALUES)
    except ValueError:
        return False
    return True
