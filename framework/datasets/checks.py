"""What ought to be known of data before it is trained on: warnings about rows, and rows that a model cannot read whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Literal

import numpy as np

from framework.errors import DataError
from framework.types import Conversation, Message, Tokens

FEW = 10  # rows that hosted fine-tuning asks for at least
TOLERATED = 0.01  # share of rows that may be cut without being asked for

Overlong = Literal["error", "truncate", "drop"]


def prompt_key(row: Conversation) -> str:
    """A prompt without regard to case and spacing: rows that share it ask the same."""
    return key_of(row.prompt)


def key_of(messages: Sequence[Message]) -> str:
    """Messages without regard to case and spacing."""
    return "\n".join(f"{message.role}: {' '.join(message.content.casefold().split())}" for message in messages)


def findings(rows: Sequence[Conversation]) -> list[str]:
    """Warnings about the rows of one file: repeated, contradicting, all answered alike."""
    by_prompt: defaultdict[str, dict[str, list[str]]] = defaultdict(dict)
    for row in rows:
        by_prompt[prompt_key(row)].setdefault(row.completion.strip(), []).append(row.origin)
    repeated = [origins for answers in by_prompt.values() for origins in answers.values() if len(origins) > 1]
    contradicting = [[origins[0] for origins in answers.values()] for answers in by_prompt.values() if len(answers) > 1]
    found = []
    if repeated:
        found.append(f"rows that repeat another: {sum(map(len, repeated)) - len(repeated)}, as {_first(repeated)}")
    if contradicting:
        found.append(f"prompts with several completions: {len(contradicting)}, as {_first(contradicting)}; keep one where one is right")
    if len(rows) > 1 and len({answer for answers in by_prompt.values() for answer in answers}) == 1:
        found.append("all completions are the same, so that nothing about the prompts is learnt")
    return found


def overlaps(splits: Mapping[str, Sequence[Conversation]]) -> list[str]:
    """Warnings about prompts that stand in two splits, which makes scores on the second too good."""
    return standing_twice({split: {prompt_key(row): row.origin for row in rows} for split, rows in splits.items()}, "prompts")


def standing_twice(known: Mapping[str, Mapping[Hashable, str]], what: str) -> list[str]:
    """A warning for each two splits that share a key; `known` says by split where each key stands."""
    found = []
    for first, second in combinations(known, 2):
        if shared := known[first].keys() & known[second].keys():
            example = min((known[second][key], known[first][key]) for key in shared)
            found.append(f"{what} of {second} that stand in {first} too: {len(shared)}, as {' and '.join(example)}")
    return found


def fit_context(examples: Sequence[Tokens], rows: Sequence[Conversation], context: int, overlong: Overlong = "error") -> tuple[list[Tokens], list[str]]:
    """Makes every example short enough for a model, and says what was done to how many; an example that fits is left as it is.

    Args:
        examples: rows as the model reads them.
        rows: the same rows, for messages.
        context: tokens that the model can read.
        overlong: what to do where examples are longer. `error`: cut them at the end if they are at most 1 % of all, else refuse.
            `truncate`: cut them, however many. `drop`: leave them out.

    Returns:
        The examples, and warnings.

    Raises:
        DataError: too many are too long, or one would have no token left to learn from.
    """
    over = [place for place, example in enumerate(examples) if len(example.ids) > context]
    empty = [place for place, example in enumerate(examples) if not np.any(example.weights[:context] > 0)]
    if overlong == "drop":
        left_out = {*over, *empty}
        kept = [example for place, example in enumerate(examples) if place not in left_out]
        if not kept:
            raise DataError(f"no row is left: none can be read whole in {context} tokens. Shorten the rows, or use a model with a longer context")
        return kept, [f"rows left out, too long for the model's {context} tokens: {_some(list(left_out), examples, rows)}"] if left_out else []
    if empty:
        raise DataError(
            f"rows without a completion within the model's {context} tokens, which would teach nothing: {_some(empty, examples, rows)}. "
            "Shorten their prompts, leave them out (overlong=drop), or use a model with a longer context"
        )
    if overlong == "error" and len(over) > TOLERATED * len(examples):
        raise DataError(
            f"rows longer than the model's {context} tokens: {_some(over, examples, rows)}. "
            "Shorten them, cut them at the end (overlong=truncate), leave them out (overlong=drop), or use a model with a longer context"
        )
    cut = [Tokens(example.ids[:context], example.weights[:context]) for example in examples]
    return cut, [f"rows cut to the model's {context} tokens: {_some(over, examples, rows)}"] if over else []


def _first(groups: Sequence[Sequence[str]]) -> str:
    """Where two rows of the first group stand."""
    return " and ".join(groups[0][:2])


def _some(places: Sequence[int], examples: Sequence[Tokens], rows: Sequence[Conversation]) -> str:
    """How many of the rows these are, and where the longest stands."""
    place = max(places, key=lambda place: len(examples[place].ids))
    return f"{len(places)} of {len(rows)}, as {rows[place].origin} ({len(examples[place].ids)} tokens)"
