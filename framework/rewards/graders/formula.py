"""The formula of a multi grader: arithmetic over the names of its graders, read into a tree and evaluated by hand."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from framework.errors import near

_LONGEST = 1_000
_OPERATORS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_SIGNS: Mapping[type, Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "log": math.log,
}
_MANY = ("min", "max")  # take two arguments or more; the others one


class Formula:
    """`+ - * / ^`, parentheses, min, max, abs, floor, ceil, exp, sqrt and log (natural), over some names.

    Args:
        text: the formula.
        names: its variables.

    Raises:
        ValueError: anything else stands in it; says what.
    """

    def __init__(self, text: str, names: Iterable[str]) -> None:
        if len(text) > _LONGEST:
            raise ValueError(f"a formula has at most {_LONGEST} characters, not {len(text)}")
        if "**" in text:
            raise ValueError("a power is written ^, not **")
        try:
            self._tree = ast.parse(text.strip().replace("^", "**"), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"{text[:80]!r} is no formula: {getattr(error, 'msg', error)}") from error
        _check(self._tree, frozenset(names))

    def __call__(self, values: Mapping[str, float]) -> float:
        """The value of the formula.

        Raises:
            ArithmeticError, ValueError: it has none, as 1 / 0 or sqrt(-1).
        """
        value = _value(self._tree, values)
        if not math.isfinite(value):
            raise ValueError(f"the formula comes to {value}")
        return value


def _check(node: ast.expr, names: frozenset[str]) -> None:
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            if not math.isfinite(node.value if isinstance(node.value, float) else float(str(node.value))):
                raise ValueError("a number in it is too large")
        case ast.Name(id=name):
            if name not in names:
                raise ValueError(f"it names {name!r}, which is no grader{near(name, names)}")
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            _check(left, names)
            _check(right, names)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _SIGNS:
            _check(operand, names)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            if (len(arguments) < 2) if name in _MANY else (len(arguments) != 1):
                raise ValueError(f"{name} takes {'two arguments or more' if name in _MANY else 'one argument'}, not {len(arguments)}")
            for argument in arguments:
                _check(argument, names)
        case _:
            raise ValueError(f"{ast.unparse(node)[:80]!r} may not stand in a formula, only numbers, graders, + - * / ^ and {', '.join(FUNCTIONS)}")


def _value(node: ast.expr, values: Mapping[str, float]) -> float:
    """Numbers are floats throughout, so that no power grows without bounds."""
    match node:
        case ast.Constant(value=value):
            return float(value)  # type: ignore[arg-type]
        case ast.Name(id=name):
            return float(values[name])
        case ast.BinOp(left=left, op=op, right=right):
            return _real(_OPERATORS[type(op)](_value(left, values), _value(right, values)))
        case ast.UnaryOp(op=op, operand=operand):
            return _real(_SIGNS[type(op)](_value(operand, values)))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _real(FUNCTIONS[name](*(_value(argument, values) for argument in arguments)))
    raise AssertionError(node)


def _real(value: Any) -> float:
    if isinstance(value, complex):
        raise ValueError(f"the formula comes to {value}")
    return float(value)
