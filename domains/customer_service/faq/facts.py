"""What policies settle, and how facts are found again in an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from framework.worlds.wordings import Bank

# topic -> how a fact of it is written, and the numbers it may hold
TOPICS: Mapping[str, tuple[str, Sequence[str]]] = {
    "return_window": ("{} days", ("14", "20", "21", "28", "30", "35", "40", "45", "60", "90", "100")),
    "refund_time": ("{} days", ("2", "3", "4", "5", "6", "7", "8", "10", "12")),
    "return_fee": ("${}", ("2", "3", "4", "5", "6", "7", "3.50", "4.50", "5.95")),
    "delivery_time": ("{} days", ("1 to 2", "2 to 3", "2 to 4", "3 to 5", "4 to 6", "5 to 7", "6 to 8", "7 to 10")),
    "delivery_fee": ("${}", ("3", "4", "5", "6", "8", "2.95", "3.95", "4.95", "6.50")),
    "free_delivery": ("${}", ("25", "30", "35", "40", "50", "60", "75", "80", "100", "120")),
    "express_time": ("{} hours", ("12", "18", "20", "24", "36", "48")),
    "express_fee": ("${}", ("9", "10", "12", "14", "15", "18", "9.50", "12.95")),
    "warranty": ("{} years", ("2", "3", "4", "5", "6", "7", "8", "10", "12")),
    "opening": ("{}", tuple(f"{opens} am to {closes} pm" for opens in (7, 8, 9, 10, 11) for closes in (4, 5, 6, 7, 8, 9))),
    "closed_day": ("{}days", ("Mon", "Tues", "Wednes", "Thurs", "Fri", "Satur", "Sun")),
    "phone": ("555-{}", tuple(f"0{number}" for number in range(103, 200))),
    "student_discount": ("{}%", ("5", "8", "10", "12", "15", "20", "25")),
    "gift_wrap": ("${}", ("1", "2", "3", "4", "2.50", "3.75", "4.25")),
    "cancel_time": ("{} hours", ("2", "3", "4", "6", "8", "10", "16", "72")),
    "price_match": ("{} days", ("7", "9", "10", "11", "15", "18", "25")),
    "collection": ("{} days", ("3", "5", "6", "8", "9", "10", "14")),
    "trial": ("{} nights", ("20", "30", "50", "60", "75", "100", "120")),
    "deposit": ("{}%", ("10", "15", "20", "25", "30", "40", "50")),
}
KINDS = {topic: form.replace("{}", "") for topic, (form, _) in TOPICS.items()}  # topics of one kind can be mistaken for each other

_SAME = [  # other ways to write a fact, and the one that policies use
    (r"\bper ?cent\b", "%"),
    (r"\b(?:working|business|full) (?=day)", ""),
    (r"\b(day|hour|year|night|(?:mon|tues|wednes|thurs|fri|satur|sun)day)\b", r"\1s"),
    (r"(?<=\d)-(?=days)", " "),
    (r"(?<=\d) (?=%)", ""),
    (r"(?<=\d)\.00\b", ""),
    (r"(?<=\d)(?=[ap]m\b)", " "),
    (r"(?<=[ap]m) ?(?:until|till|-|–) ?", " to "),
]
_FACT = re.compile(
    r"\$\d+(?:\.\d\d)?|\b\d{3}-\d{4}\b|\b\d+ am to \d+ pm\b|\b(?:\d+ to )?\d+ (?:days|hours|years|nights)\b|\b\d+%"
    r"|\b(?:mon|tues|wednes|thurs|fri|satur|sun)days\b"
)
_UNKNOWN = re.compile(
    r"\b(?:not|cannot|n't|never|nothing|unable to) (?:\w+ ){0,2}?(?:say|said|tell|known?|stated?|mention(?:ed)?|cover(?:ed)?|find|listed|specif(?:y|ied))\b"
    r"|\bno information\b"
)


def facts_in(text: str) -> frozenset[str]:
    """Every fact that a text states, in the one way in which policies write it, in lower case."""
    text = text.lower().replace("’", "'")
    for pattern, plain in _SAME:
        text = re.sub(pattern, plain, text)
    return frozenset(_FACT.findall(text))


def admits_ignorance(text: str) -> bool:
    """Whether a text says that something is not known or not said."""
    return bool(_UNKNOWN.search(text.lower().replace("’", "'").replace("n't", " n't")))


def check(bank: Bank) -> None:
    """Looks whether answers can be told apart.

    Raises:
        ValueError: an answer whose fact is not found again, or that sounds as if it were not known; or the other way round.
    """
    for topic, (form, numbers) in TOPICS.items():
        fact = form.format(numbers[0])
        for answer in bank[topic]["fact"]:
            if facts_in(answer.format(value=fact)) != {fact.lower()} or admits_ignorance(answer):
                raise ValueError(f"answers.yaml: {topic}: {answer!r} is not understood")
    for answer in bank["unknown"]["plain"]:
        if not admits_ignorance(answer):
            raise ValueError(f"answers.yaml: unknown: {answer!r} is not understood")
