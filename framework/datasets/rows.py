"""From a row of a file to a conversation, or to the faults that forbid it.

A row holds `prompt` and `completion`, each a text or a list of messages, or the list `messages` of the published fine-tuning format. Of a
prompt and completion only the completion is learnt; of `messages`, every assistant's message whose `weight` is not 0. What else a row
holds is kept under its name in `Conversation.fields`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from framework.datasets.faults import Faults
from framework.datasets.layout import Layout
from framework.datasets.readers import MAX_TEXT, kind
from framework.errors import near
from framework.types import Conversation, Message

COLUMNS = ("prompt", "completion")
NAMES = (*COLUMNS, "messages")
ROLES = ("system", "developer", "user", "assistant")
_MESSAGE = ("role", "content", "weight")
_TOOLS = ("tools", "functions")


def chats(system: str | None) -> Layout[Conversation]:
    """Rows of prompts and completions, or of chats; with a system prompt for those that bring none."""
    example = '{"prompt": ..., "completion": ...} or {"messages": [...]}'
    return Layout((COLUMNS, ("messages",)), NAMES, "a prompt and a completion", example, partial(conversation, system=system))


def conversation(number: int, row: Mapping[str, Any], faults: Faults, system: str | None) -> Conversation | None:
    """What a row says; None, and faults, where that cannot be.

    Args:
        number: of the line or row.
        row: its values by name, known names in lower case.
        faults: takes what is wrong.
        system: the system prompt of rows that bring none.
    """
    before = len(faults.found)
    messages = _chat(number, row, faults) if "messages" in row else _pair(number, row, faults)
    if len(faults.found) == before and (amiss := grammar(messages)):
        faults.add(number, "messages", *amiss)
    refuse_tools(number, row, faults)
    if len(faults.found) > before:
        return None
    if system is not None and messages[0].role != "system":
        messages.insert(0, Message("system", system))
    return Conversation(tuple(messages), faults.place(number), {name: as_text(value) for name, value in row.items() if name not in NAMES and value is not None})


def refuse_tools(number: int, row: Mapping[str, Any], faults: Faults) -> None:
    """Faults of a row that brings tools."""
    for name in _TOOLS:
        if row.get(name):
            faults.add(number, name, "tools cannot be learnt", "Remove the key, and the messages that use it")


def _pair(number: int, row: Mapping[str, Any], faults: Faults) -> list[Message]:
    """The messages of a prompt and a completion."""
    messages = []
    for name, role in zip(COLUMNS, ("user", "assistant"), strict=True):
        if name not in row:
            faults.add(number, name, f"is missing{near(name, row.keys() - NAMES)}", "Give every row a prompt and a completion, or messages")
        elif isinstance(row[name], list):
            found = listed(number, row[name], name, faults)
            messages += found if name == "completion" else [replace(m, weight=0.0) if m.role == "assistant" else m for m in found]
        elif amiss := amiss_text(row[name]):
            faults.add(number, name, *amiss)
        else:
            messages.append(Message(role, row[name]))
    return messages


def _chat(number: int, row: Mapping[str, Any], faults: Faults) -> list[Message]:
    """The messages of a chat."""
    for name in COLUMNS:
        if row.get(name) is not None:
            faults.add(number, name, "stands beside messages", "Keep one of the two")
    if not isinstance(row["messages"], list):
        faults.add(number, "messages", f"is {kind(row['messages'])}, not a list", 'Write [{"role": "user", "content": ...}, ...]')
        return []
    return listed(number, row["messages"], "messages", faults)


def listed(number: int, items: Sequence[Any], field: str, faults: Faults) -> list[Message]:
    """Messages one by one; their order is not looked at."""
    if not items:
        faults.add(number, field, "is an empty list", "Add messages or remove the row")
    messages = []
    for place, item in enumerate(items):
        if not isinstance(item, dict):
            faults.add(number, f"{field}[{place}]", f"is {kind(item)}, not an object", 'Write {"role": ..., "content": ...}')
        elif amiss := _amiss_message(item):
            name, *told = amiss
            faults.add(number, f"{field}[{place}].{name}", *told)
        else:
            role = "system" if item["role"] == "developer" else item["role"]
            weight = item.get("weight")
            messages.append(Message(role, item["content"], 1.0 if weight is None else float(weight)))
    return messages


def _amiss_message(item: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The key of a message that is wrong, the rule and the remedy."""
    role, weight = item.get("role"), item.get("weight")
    if role not in ROLES:
        told = "is missing" if role is None else f"{role!r} is none of a conversation's{near(str(role), ROLES)}"
        return "role", told, "Name who speaks"
    for name, value in item.items():
        if name not in _MESSAGE and value is not None:
            return name, f"is not a message's{near(name, _MESSAGE)}", "Remove it; tools, names and pictures cannot be learnt"
    if "content" not in item:
        return "content", "is missing", "Add what is said"
    if amiss := amiss_text(item["content"]):
        return "content", *amiss
    if weight is not None and (role != "assistant" or isinstance(weight, bool) or weight not in (0, 1)):
        return "weight", f"{weight!r} stands in a message of {role}", "Give a weight of 0 or 1, and to messages of the assistant only"
    return None


def amiss_text(text: Any) -> tuple[str, str] | None:
    """What is wrong with a text, and the remedy."""
    if not isinstance(text, str):
        return f"is {kind(text)}, not a text", "Write a text in quotes, or remove the row"
    if not text or text.isspace():
        return "is empty", "Write a text or remove the row"
    if len(text) > MAX_TEXT:
        return f"has {len(text)} characters, over {MAX_TEXT}", "Shorten it"
    if "\0" in text:
        return "holds a NUL character", "Remove it"
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return "holds half of a character (a lone surrogate)", "Write the whole character, as 😀 or \\ud83d\\ude00"
    return None


def grammar(messages: Sequence[Message]) -> tuple[str, str] | None:
    """What is wrong with the order of messages, and the remedy."""
    roles = [message.role for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if "system" in turns:
        return "a system message stands after the first", "Put one system message first"
    if "assistant" not in turns:
        return "the assistant says nothing, so there is nothing to learn", "End with an assistant's message"
    for place, role in enumerate(turns, len(roles) - len(turns)):
        expected = ("user", "assistant")[(place - len(roles) + len(turns)) % 2]
        if role != expected:
            return f"message [{place}] is of {role} where {expected} must speak: they take turns, the user first", "Join messages of one speaker"
    if roles[-1] != "assistant":
        return "the user has the last word", "End with an assistant's message"
    if not messages[-1].weight:
        return "the last message has weight 0", "Give it weight 1, or end with the last message to be learnt"
    return None


def as_text(value: Any) -> str:
    """A further value as text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
