"""A file of preferences as a source of pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from framework.datasets import SPLITS
from framework.datasets.checks import FEW, key_of, standing_twice
from framework.datasets.layout import Layout
from framework.datasets.preference_rows import pairs
from framework.datasets.split_files import SplitFiles
from framework.interfaces import PreferenceSource
from framework.preferences.teachers import words
from framework.types import Conversation, Message, Preference

ONE_SIDED = 0.7  # share of rows at which a length that tells the label is worth a warning


@dataclass(kw_only=True)
class PreferenceFile(SplitFiles[Preference], PreferenceSource):
    """Preferences from a file; its settings are those of `SplitFiles`. The same prompt is never held out and trained on.

    `path` may also be a folder with a file for each split, as `experiment=collect_preferences` leaves it.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        folder = Path(self.path).expanduser()
        if folder.is_dir() and (folder / "train.jsonl").is_file():
            found = {split: folder / f"{split}.jsonl" for split in SPLITS}
            self.path = str(found["train"])
            self.validation, self.test = (
                given or (str(found[split]) if found[split].is_file() else None) for split, given in zip(SPLITS[1:], (self.validation, self.test), strict=True)
            )

    def preferences(self, split: str) -> Sequence[Preference]:
        """See `PreferenceSource`; with `strict`, files that give warnings are refused too."""
        return self.rows(split)

    def layout(self) -> Layout[Preference]:
        """See `SplitFiles`."""
        return pairs(self.system)

    def key(self, row: Preference) -> str:
        """See `SplitFiles`: the prompt."""
        return key_of(prompt_of(row.chosen))

    def findings(self, rows: Sequence[Preference]) -> list[str]:
        """Pairs that are alike, repeated or contradict each other; labels and lengths that are one-sided."""
        return [*_by_pair(rows), *_by_label(rows)]

    def overlaps(self, splits: Mapping[str, Sequence[Preference]]) -> list[str]:
        """Pairs that stand in two splits; prompts may, since different pairs of answers to them tell different things."""
        return standing_twice({split: {_pair(row): row.chosen.origin for row in rows} for split, rows in splits.items()}, "pairs")

    def further(self, row: Preference) -> Mapping[str, str]:
        """See `SplitFiles`."""
        return row.chosen.fields


def prompt_of(conversation: Conversation) -> Sequence[Message]:
    """What stands before the first message that is learnt."""
    return list(takewhile(lambda message: message.role != "assistant" or not message.weight, conversation.messages))


def _pair(row: Preference) -> frozenset[str]:
    """Both sides, whichever was chosen."""
    return frozenset(map(key_of, (row.chosen.messages, row.rejected.messages)))


def _by_pair(rows: Sequence[Preference]) -> list[str]:
    """Warnings about what the same two sides are called."""
    said: defaultdict[frozenset[str], defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        liked = "" if row.label == 0.5 else key_of((row.chosen if row.label > 0.5 else row.rejected).messages)
        said[_pair(row)][liked].append(row.chosen.origin)
    alike = [row.chosen.origin for row in rows if len(_pair(row)) == 1]
    repeated = [origins for verdicts in said.values() for origins in verdicts.values() if len(origins) > 1]
    contradicting = [[origins[0] for origins in verdicts.values()] for verdicts in said.values() if len(verdicts) > 1]
    found = []
    if alike:
        found.append(f"rows whose chosen and rejected are the same, so that nothing is learnt from them: {len(alike)}, as {alike[0]}")
    if repeated:
        found.append(f"rows that repeat another: {sum(map(len, repeated)) - len(repeated)}, as {' and '.join(repeated[0][:2])}")
    if contradicting:
        found.append(f"pairs that rows disagree on: {len(contradicting)}, as {' and '.join(contradicting[0][:2])}")
    return found


def _by_label(rows: Sequence[Preference]) -> list[str]:
    """Warnings about what the labels have in common."""
    turned = [row.chosen.origin for row in rows if row.label < 0.5]
    decided = [row for row in rows if row.label != 0.5]
    found = []
    if turned:
        found.append(f"rows whose label is under 0.5, so that `rejected` is what was liked: {len(turned)}, as {turned[0]}")
    if not decided:
        found.append("all rows are ties, so that nothing is learnt")
    lengths = [_words(row.chosen) - _words(row.rejected) for row in decided if row.label > 0.5]
    for told, longer in (("longer", sum(length > 0 for length in lengths)), ("shorter", sum(length < 0 for length in lengths))):
        if len(lengths) >= FEW and longer >= ONE_SIDED * len(lengths):
            found.append(f"chosen is the {told} one in {longer} of {len(lengths)} rows: a reward may learn the length and nothing else")
    return found


def _words(conversation: Conversation) -> int:
    """What the assistant says, as teachers count it."""
    return words([message.content for message in conversation.messages if message.role == "assistant"])
