"""Completions of prompts, sampled in batches from a causal language model in transformers layout.

Every distinct prompt is read once, however many completions are drawn from it; rows that have ended leave the batch; the ids that
were drawn and their log-probabilities are kept, so that nothing is ever tokenised again.

P: distinct prompts, B: completions under way, T: tokens of the longest prompt, V: vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framework.errors import ConfigError
from framework.lm.decoding import decoding
from framework.lm.group_cache import GroupCache, Reading
from framework.lm.read_before import ReadBefore
from framework.lm.sampling import check, draw
from framework.types import Completion, Floats, Ints, Sampling

_CACHE_TOKENS = 2**17  # tokens whose keys and values are kept at a time; completions beyond that wait, those of one prompt stay together
_PASS_TOKENS = 2**13  # tokens of prompts in one pass
_SHRINK = 7 / 8  # ended rows leave when no more than this share of the batch is still under way: leaving copies the others
Trie = dict[int, Any]  # token ids to what may follow; empty where a sequence ends


@dataclass(slots=True)
class _Row:
    """A completion under way."""

    uniforms: Tensor  # [max_tokens]
    allowed: Trie | None  # what may come next
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str = ""
    state: Floats | None = None  # [D] at the end of its prompt


@dataclass(frozen=True, slots=True)
class Ending:
    """When a completion ends, and what it says."""

    sampling: Sampling
    end_ids: Collection[int]
    decode: Callable[[Ints], str]

    def reason(self, row: _Row) -> str:
        """Why a row ends with its last token; empty if it does not."""
        if row.ids[-1] in self.end_ids or row.allowed == {} or self._stopped(row.ids):
            return "stop"
        return "length" if len(row.ids) == self.sampling.max_tokens else ""

    def text(self, ids: list[int]) -> str:
        """What ids say: without the token that ends a turn, and only up to a stop string."""
        said = ids[:-1] if ids and ids[-1] in self.end_ids else ids
        text = self.decode(np.array(said, np.int64))
        return text[: min((place for stop in self.sampling.stop if (place := text.find(stop)) >= 0), default=len(text))]

    def settled(self, text: str) -> int:
        """Length of the part of a text that later tokens cannot change: the rest may be half a character, or begin a stop string."""
        text = text.rstrip("\N{REPLACEMENT CHARACTER}")
        held = (size for stop in self.sampling.stop for size in range(1, len(stop)) if text.endswith(stop[:size]))
        return len(text) - max(held, default=0)

    def completion(self, row: _Row) -> Completion:
        """A row that has ended."""
        return Completion(np.array(row.ids, np.int64), np.array(row.logprobs), self.text(row.ids), row.finish_reason, row.state)

    def _stopped(self, ids: list[int]) -> bool:
        """Whether a stop string has come up. The last tokens are looked at first, enough of them if each is only a byte."""
        stops = self.sampling.stop
        last = max((len(stop.encode()) for stop in stops), default=0) + 4
        return any(all(stop in self.decode(np.array(part, np.int64)) for part in (ids[-last:], ids)) for stop in stops)


def generate(
    model: Any,
    prompts: Sequence[Ints],
    sampling: Sampling,
    n: int = 1,
    *,
    end_ids: Collection[int],
    decode: Callable[[Ints], str],
    generator: torch.Generator | None = None,
    allowed: Sequence[Sequence[Ints]] | None = None,
    before: ReadBefore | None = None,
) -> list[list[Completion]]:
    """`n` completions of each prompt.

    Completion j of prompt i is drawn with the numbers of row i * n + j of one table, so what it says depends on its place and on
    `max_tokens`, but on no other prompt and not on when others end, save where rounding in another batch tips a draw.

    Args:
        model: causal language model of transformers, bare or in a peft model; see `decoding` for what happens to it meanwhile.
        prompts: token ids, `[T]` each, at least one.
        sampling: how to draw, and when to stop; its allowed texts are the caller's to give as ids.
        n: completions of each prompt.
        end_ids: tokens that end a completion; they are kept in its ids, not in its text.
        decode: ids to text.
        generator: source of the random numbers; torch's own by default.
        allowed: of each prompt the only completions there may be, as token ids, none the beginning of another (end each with the
            token that ends a turn). Each token is then drawn from those that lead on, and log-probabilities are of that choice:
            softmax(logits / temperature) over the tokens that lead on.
        before: what the model, as it still is, has read before; prompts that begin alike are read only from there on, and remembered
            in their turn, if they are no more than are read together.

    Raises:
        ConfigError: settings of `sampling` that cannot be used, a prompt too long, or a model that cannot be decoded here.
        ValueError: `n` below 1, no tokens in a prompt, or `allowed` that cannot be kept to.
        TrainingError: the model's logits are not numbers.
    """
    if n < 1 or (allowed is not None and len(allowed) != len(prompts)):
        raise ValueError(f"n must be at least 1, not {n}, and allowed, where given, name the sequences of each of {len(prompts)} prompts")
    check_request(model, prompts, sampling)
    tries = [None] * len(prompts) if allowed is None else [_trie(sequences, sampling.max_tokens) for sequences in allowed]
    ending, uniforms = Ending(sampling, end_ids, decode), _uniforms(len(prompts) * n, sampling, generator)
    completions = [[_Row(uniforms[i * n + j], trie) for j in range(n)] for i, trie in enumerate(tries)]
    groups: dict[bytes, tuple[Ints, list[_Row]]] = {}
    for prompt, rows in zip(prompts, completions, strict=True):
        prompt = np.asarray(prompt, np.int64)
        groups.setdefault(prompt.tobytes(), (prompt, []))[1].extend(rows)
    with decoding(model, len(prompts) * n) as network:
        waves = list(_waves(sorted(groups.values(), key=lambda group: len(group[0])), sampling.max_tokens))
        for wave in waves:
            for _ in _steps(network, wave, ending, before if len(waves) == 1 else None):
                pass
    return [[ending.completion(row) for row in rows] for rows in completions]


def stream(
    model: Any,
    prompt: Ints,
    sampling: Sampling,
    *,
    end_ids: Collection[int],
    decode: Callable[[Ints], str],
    generator: torch.Generator | None = None,
    allowed: Sequence[Ints] | None = None,
) -> Generator[str, None, Completion]:
    """One completion of one prompt as it comes: pieces of text that together are its text; returns the completion.

    The model is busy until the generator has ended or is closed. Arguments and errors are those of `generate`, `allowed` those of this prompt.
    """
    prompt = np.asarray(prompt, np.int64)
    check_request(model, [prompt], sampling)
    trie = None if allowed is None else _trie(allowed, sampling.max_tokens)
    ending, row, sent = Ending(sampling, end_ids, decode), _Row(_uniforms(1, sampling, generator)[0], trie), 0
    with decoding(model, 1) as network:
        for _ in _steps(network, [(prompt, [row])], ending):
            text = ending.text(row.ids)
            if (ready := ending.settled(text)) > sent:
                yield text[sent:ready]
                sent = ready
    completion = ending.completion(row)
    if completion.text[sent:]:
        yield completion.text[sent:]
    return completion


@torch.no_grad()
def _steps(network: Any, groups: Sequence[tuple[Ints, list[_Row]]], ending: Ending, before: ReadBefore | None = None) -> Iterator[None]:
    """Writes completions to their rows, one token of each at a time; prompts are in order of length."""
    device, sampling = network.device, ending.sampling
    rows = [row for _, members in groups for row in members]
    lengths = torch.tensor([len(prompt) for prompt, _ in groups], device=device)
    owner = torch.arange(len(groups), device=device).repeat_interleave(torch.tensor([len(members) for _, members in groups], device=device))
    cache = GroupCache(lengths, owner, sampling.max_tokens)
    logits, states = _read(network, cache, [prompt for prompt, _ in groups], before or ReadBefore())
    for (_, members), state in zip(groups, states.float().cpu().numpy(), strict=True):
        for row in members:
            row.state = state
    logits = logits[owner]
    positions, uniforms = lengths[owner], torch.stack([row.uniforms for row in rows]).to(device)
    for step in range(sampling.max_tokens):
        tokens, logprobs = draw(_restrict(logits, rows), uniforms[:, step], sampling)
        _record(rows, tokens, logprobs, ending)
        yield
        going = [place for place, row in enumerate(rows) if not row.finish_reason]
        if not going:
            return
        if len(going) <= _SHRINK * len(rows):
            kept = torch.tensor(going, device=device)
            rows, tokens, positions, uniforms = [rows[place] for place in going], tokens[kept], positions[kept], uniforms[kept]
            cache.keep(kept)
        cache.step = step
        logits = _logits(network, cache, tokens[:, None], (positions + step)[:, None])[:, 0]


def _read(network: Any, cache: GroupCache, prompts: Sequence[Ints], before: ReadBefore) -> tuple[Tensor, Tensor]:
    """Reads prompts into the cache, but for what was read before; what may follow each, `[P, V]`, and the states that say so, `[P, D]`."""
    device, (sources, starts) = network.device, before.beginnings(prompts)
    if (begun := starts.nonzero()[0]).size:
        cache.begin_with(before.layers, torch.as_tensor(sources[begun], device=device), torch.as_tensor(begun, device=device), int(starts.max()))
    counts = np.array([len(prompt) for prompt in prompts]) - starts
    order, first = counts.argsort(kind="stable"), 0
    logits, states = [], []
    while first < len(order):
        last = first + 1
        while last < len(order) and (last + 1 - first) * counts[order[last]] <= _PASS_TOKENS:
            last += 1
        rows = order[first:last]
        batch = [torch.from_numpy(prompts[row][starts[row] :]) for row in rows]
        ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True).to(device)
        cache.reading = reading = Reading(*(torch.as_tensor(part, device=device) for part in (rows, starts[rows], counts[rows])))
        last_tokens = _At(reading.counts - 1)  # the head sees one token of each prompt
        with network.get_output_embeddings().register_forward_pre_hook(last_tokens):
            logits.append(_logits(network, cache, ids, reading.places)[:, 0])
        states.append(last_tokens.states)
        first = last
    cache.reading = None
    before.keep(prompts, cache.prompts)
    back = torch.as_tensor(order.argsort(), device=device)
    return torch.cat(logits)[back], torch.cat(states)[back]


@dataclass(slots=True)
class _At:
    """A hook that leaves one token of each row, `[B, T, D]` to `[B, 1, D]`, and keeps it."""

    places: Tensor  # [B]
    states: Tensor = field(init=False)  # [B, D]

    def __call__(self, module: torch.nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
        hidden = arguments[0]
        self.states = hidden[torch.arange(len(hidden), device=hidden.device), self.places]
        return (self.states[:, None],)


def _logits(network: Any, cache: GroupCache, ids: Tensor, positions: Tensor) -> Tensor:
    output = network(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True, group_cache=cache)
    return output.logits.float()


def _restrict(logits: Tensor, rows: Sequence[_Row]) -> Tensor:
    """Logits with -inf for the tokens that lead to nothing allowed."""
    bound = [(place, row.allowed) for place, row in enumerate(rows) if row.allowed]
    if not bound:
        return logits
    places = [place for place, _ in bound]
    kept = [(place, token) for place, trie in bound for token in trie]
    restricted = logits.clone()
    restricted[places] = -torch.inf
    where = tuple(torch.tensor(kept, device=logits.device).T)
    restricted[where] = logits[where]
    return restricted


def _record(rows: Sequence[_Row], tokens: Tensor, logprobs: Tensor, ending: Ending) -> None:
    """Adds a token to each row that has not ended, and notes which end with it."""
    for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
        if not row.finish_reason:
            row.ids.append(token)
            row.logprobs.append(logprob)
            row.allowed = None if row.allowed is None else row.allowed[token]
            row.finish_reason = ending.reason(row)


def _uniforms(rows: int, sampling: Sampling, generator: torch.Generator | None) -> Tensor:
    """A number for every token that may be drawn, `[rows, max_tokens]`."""
    return torch.rand(rows, sampling.max_tokens, generator=generator, device="cpu" if generator is None else generator.device)


def _waves(groups: Sequence[tuple[Ints, list[_Row]]], max_tokens: int) -> Iterator[Sequence[tuple[Ints, list[_Row]]]]:
    """Groups, in order of length, in parts whose keys and values may be kept at once; none of them is split."""
    first, rows = 0, 0
    for place, (prompt, members) in enumerate(groups):
        rows += len(members)
        if place > first and (place + 1 - first) * len(prompt) + rows * max_tokens > _CACHE_TOKENS:
            yield groups[first:place]
            first, rows = place, len(members)
    if groups:
        yield groups[first:]


def _trie(sequences: Sequence[Ints], max_tokens: int) -> Trie:
    """Sequences of tokens as a tree."""
    ordered = sorted({tuple(map(int, sequence)) for sequence in sequences})
    if not ordered or not ordered[0] or max(map(len, ordered)) > max_tokens:
        raise ValueError(f"allowed: each prompt needs one sequence or more, each of 1 to max_tokens = {max_tokens} tokens")
    if any(longer[: len(sequence)] == sequence for sequence, longer in pairwise(ordered)):
        raise ValueError("allowed: a sequence is the beginning of another; end each with the token that ends a turn")
    root: Trie = {}
    for sequence in ordered:
        node = root
        for token in sequence:
            node = node.setdefault(token, {})
    return root


def check_request(model: Any, prompts: Sequence[Ints], sampling: Sampling) -> None:
    """Raises a `ConfigError` for settings that cannot be used or do not fit into the model's context, a `ValueError` for a prompt without tokens."""
    check(sampling)
    longest, context = max(map(len, prompts), default=1), getattr(model.config, "max_position_embeddings", None)
    if not all(map(len, prompts)):
        raise ValueError("a prompt without tokens: begin it with the token that begins a text")
    if context is not None and longest + sampling.max_tokens > context:
        raise ConfigError("sampling.max_tokens", f"{longest} tokens of prompt and {sampling.max_tokens} more do not fit into the model's {context}")
