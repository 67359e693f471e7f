"""Published Bayesian networks: read from BIF files, and asked for exact joint distributions."""

from __future__ import annotations

import gzip
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from framework.types import Floats

_VARIABLE = re.compile(r"variable\s+(\S+)\s*\{\s*type\s+discrete\s*\[\s*\d+\s*\]\s*\{([^}]*)\}")
_PROBABILITY = re.compile(r"probability\s*\(([^)|]*)(?:\|([^)]*))?\)\s*\{([^}]*)\}")
_ROW = re.compile(r"(?:\(([^)]*)\)|table|default)\s*([^;]*);")


@dataclass(frozen=True)
class Node:
    """A variable: its states, its parents, and P(state | parents) as `[*parents' states, states]`."""

    states: tuple[str, ...]
    parents: tuple[str, ...]
    table: Floats


@dataclass(frozen=True)
class BayesNet:
    """A discrete Bayesian network."""

    nodes: Mapping[str, Node]

    def joint(self, query: Sequence[str], given: Mapping[str, str] | None = None) -> Floats:
        """P(query, given) over the states of the query's variables, in their order; exact, by summing the other variables out.

        Args:
            query: at most about a dozen variables.
            given: states of other variables.
        """
        given = given or {}
        if unknown := {*query, *given} - set(self.nodes):
            raise ValueError(f"no variable {', '.join(sorted(unknown))} in the network")
        factors = [self._factor(name, given) for name in self._ancestors((*query, *given))]
        hidden = [variable for variable in dict.fromkeys(variable for variables, _ in factors for variable in variables) if variable not in query]
        while hidden:  # the cheapest variable first
            variable = min(hidden, key=lambda v: len({other for variables, _ in factors for other in variables if v in variables}))
            touching = [factor for factor in factors if variable in factor[0]]
            kept = tuple(dict.fromkeys(other for variables, _ in touching for other in variables if other != variable))
            factors = [factor for factor in factors if variable not in factor[0]] + [(kept, _product(touching, kept))]
            hidden.remove(variable)
        return _product(factors, tuple(query))

    def _factor(self, name: str, given: Mapping[str, str]) -> tuple[tuple[str, ...], Floats]:
        """A node's table with what is given filled in."""
        variables, table = (*self.nodes[name].parents, name), self.nodes[name].table
        for axis in reversed([i for i, variable in enumerate(variables) if variable in given]):
            table = np.asarray(np.take(table, self.nodes[variables[axis]].states.index(given[variables[axis]]), axis=axis))
        return tuple(variable for variable in variables if variable not in given), table

    def _ancestors(self, names: Sequence[str]) -> list[str]:
        """The variables and all they depend on; the rest sums to one."""
        found, todo = dict[str, None](), list(names)
        while todo:
            name = todo.pop()
            if name not in found:
                found[name] = None
                todo.extend(self.nodes[name].parents)
        return list(found)


@cache
def read_bif(path: Path) -> BayesNet:
    """Reads a network in the Bayesian Interchange Format, gzipped or not.

    Raises:
        ValueError: a table whose size or sums are wrong.
    """
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    states = {name: tuple(part.strip() for part in listed.split(",")) for name, listed in _VARIABLE.findall(text)}
    nodes = {}
    for head, tail, body in _PROBABILITY.findall(text):
        name, parents = head.strip(), tuple(part.strip() for part in tail.split(",") if part.strip())
        table = np.full([len(states[variable]) for variable in (*parents, name)], np.nan)
        for configuration, numbers in _ROW.findall(body):
            row = tuple(states[parent].index(value.strip()) for parent, value in zip(parents, configuration.split(","), strict=False)) if configuration else ()
            table[row] = [float(number) for number in numbers.split(",")]
        if not np.allclose(table.sum(axis=-1), 1, atol=1e-3):
            raise ValueError(f"{path}: the table of {name} is incomplete or does not sum to one")
        nodes[name] = Node(states[name], parents, table / table.sum(axis=-1, keepdims=True))
    return BayesNet(nodes)


def _product(factors: Sequence[tuple[tuple[str, ...], Floats]], kept: tuple[str, ...]) -> Floats:
    """The product of factors, summed over every variable that is not kept."""
    letter = dict(zip(dict.fromkeys(variable for variables, _ in factors for variable in variables), string.ascii_letters, strict=False))
    inputs = ",".join("".join(letter[variable] for variable in variables) for variables, _ in factors)
    return np.asarray(np.einsum(f"{inputs}->{''.join(letter[variable] for variable in kept)}", *(table for _, table in factors), optimize="greedy"))
