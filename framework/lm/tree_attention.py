"""Attention of trees laid out one after the other, each token seeing its own branch and the context before it, for unchanged transformers models.

A stretch is what stands together and is read from left to right: a context, or a branch, which sees a part of its context besides. Stretches of
like length attend side by side, so that no product is computed of tokens that do not see one another, but for little padding.

T: tokens, S: stretches side by side, Q: tokens of the longest, K: what it sees, H: query heads, G: key heads, D: width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface

from framework.errors import ConfigError
from framework.types import Ints

ATTENTION = "trees"
"""The name under which transformers knows `tree_attention`. No mask goes by this name, so models build none."""
_WASTE = 2**14  # pairs of tokens that may be attended to in vain, which cost as much as to attend once more
_PLAIN = 320  # tokens seen; the attention to more, a number for each pair of tokens, is more than caches hold


@dataclass(frozen=True, slots=True)
class Stretches:
    """Some of like length. Padding is any token: it is seen by nobody, and what it sees is thrown away."""

    queries: Tensor  # [S, Q] places of their tokens
    keys: Tensor  # [S, K] places of what they see: a part of the context, then themselves
    offsets: Tensor | None  # [S] tokens of that part; None: they see no context


@dataclass(frozen=True, slots=True)
class Sight:
    """Which token sees which."""

    stretches: Sequence[Stretches]
    order: Tensor  # [T] where each token's output is among those of all stretches, padding included

    @classmethod
    def of(cls, contexts: Ints, starts: Ints, lengths: Ints, offsets: Ints, device: torch.device | str) -> Sight:
        """Lays out attention.

        Args:
            contexts: where the context of each stretch begins, `[N]`; of no meaning where it sees none.
            starts: where each begins.
            lengths: of each, at least 1; together they are all tokens.
            offsets: how many tokens of its context each sees.
            device: where the tensors go.
        """
        order, found, base = np.zeros(int(lengths.sum()), np.int64), list[Stretches](), 0
        for members in _alike(lengths, lengths + offsets):
            context, start, length, offset = (each[members, None] for each in (contexts, starts, lengths, offsets))
            along, seen = np.arange(length.max()), np.arange((length + offset).max())
            queries, keys = start + along, np.where(seen < offset, context + seen, start + seen - offset)
            slots = base + np.arange(queries.size).reshape(queries.shape)
            order[queries[along < length]] = slots[along < length]
            base += queries.size
            put = lambda places: torch.from_numpy(places.clip(0, len(order) - 1)).to(device)  # noqa: E731
            found.append(Stretches(put(queries), put(keys), torch.from_numpy(offset[:, 0]).to(device) if offset.any() else None))
        return cls(found, torch.from_numpy(order).to(device))


def _alike(lengths: Ints, seen: Ints) -> Iterator[Ints]:
    """Numbers of stretches that attend side by side with little padding; those that see no context apart."""
    for sees in (False, True):
        members, longest, area = list[int](), 0, 0
        for number in np.lexsort((-lengths, -seen)):  # the most that is seen first
            if (seen[number] > lengths[number]) != sees:
                continue
            length, pairs = int(lengths[number]), int(lengths[number] * seen[number])
            widest = max(longest, length)
            if members and (len(members) + 1) * widest * int(seen[members[0]]) - area - pairs > max(_WASTE, area):
                yield np.array(members)
                members, widest, area = [], length, 0
            members, longest, area = [*members, int(number)], widest, area + pairs
        if members:
            yield np.array(members)


def tree_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, sight: Sight, **kwargs: Any
) -> tuple[Tensor, None]:
    """What a transformers model calls for attention; the sight comes to it through the model's own keyword arguments.

    Args:
        query: `[1, H, T, D]`.
        key, value: `[1, G, T, D]`.

    Returns:
        `[1, T, H, D]`, and no weights.

    Raises:
        ConfigError: the layer attends in a way that this does not.
    """
    special = [name for name in ("softcap", "s_aux") if kwargs.get(name) is not None]
    if special:
        raise ConfigError("lm.path", f"its layers attend with {special[0]}, which packed examples cannot; take a model of the Llama or Qwen kind")
    scaling, dtype = kwargs.get("scaling") or query.shape[-1] ** -0.5, value.dtype
    with torch.autocast(query.device.type, enabled=False):
        # A context's keys and values are gathered for every branch: their gradients are summed in float32.
        q, k, v = (states[0].transpose(0, 1).float() for states in (query, key, value))
        parts = [
            _attend(_gather(q, some.queries, dtype), _gather(k, some.keys, dtype), _gather(v, some.keys, dtype), some.offsets, scaling)
            for some in sight.stretches
        ]
        return torch.cat([part.transpose(1, 2).flatten(0, 1) for part in parts]).index_select(0, sight.order)[None], None


def _gather(states: Tensor, places: Tensor, dtype: torch.dtype) -> Tensor:
    """`[T, H, D]` to `[S, H, Q, D]`."""
    return states.index_select(0, places.flatten()).to(dtype).unflatten(0, places.shape).transpose(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor, offsets: Tensor | None, scaling: float) -> Tensor:
    """`[S, H, Q, D]` from queries and `[S, G, K, D]`."""
    (count, heads, length, _), (kv_heads, seen) = query.shape, key.shape[1:3]
    plain = query.device.type == "cpu" and query.dtype == torch.bfloat16 and seen <= _PLAIN
    if offsets is None and not plain:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=heads != kv_heads)
    along = torch.arange(length, device=query.device)[None]
    reach = along if offsets is None else along + offsets[:, None]  # the last that each token sees
    bias = torch.zeros(len(reach), 1, length, seen, dtype=query.dtype, device=query.device)
    bias.masked_fill_((torch.arange(seen, device=query.device) > reach[:, :, None])[:, None], -torch.inf)
    if not plain:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scaling, enable_gqa=heads != kv_heads)
    # In bfloat16 on processors the fused kernel's backward pass takes up to four times as long.
    scores = (query * scaling).reshape(count, kv_heads, -1, query.shape[-1]) @ key.mT  # [S, G, H / G * Q, K]
    weights = (scores.view(count, heads, length, seen) + bias).softmax(-1)
    return (weights.view(scores.shape) @ value).view(query.shape)


AttentionInterface.register(ATTENTION, tree_attention)
