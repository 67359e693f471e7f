"""One key-value cache for many completions of few prompts, and the attention that reads it, for unchanged transformers models.

The completions of one prompt are a group. A group keeps the keys and values of its prompt once, and all its newest tokens meet them
in one matrix product; each completion's own keys and values are apart; one softmax joins the two (Hydragen, arXiv 2402.05099).

B: rows (completions under way), P: groups, G: rows of the largest group, H: query heads, K: key heads, R = H / K, T: tokens of the
longest prompt, N: tokens of a completion, D: width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, Cache

from framework.errors import ConfigError
from framework.lm.read_before import Layers

ATTENTION = "group_cache"
"""The name under which transformers knows `group_attention`. No mask goes by this name, so models build none."""


@dataclass(frozen=True)
class Reading:
    """A pass that reads prompts, n of them, or what is new of each.

    Attributes:
        rows: the prompts, `[n]`.
        starts: tokens of each that are in the cache already, `[n]`.
        counts: tokens of each that are read, `[n]`; the pass is as wide as the most, W.
    """

    rows: Tensor
    starts: Tensor
    counts: Tensor

    @cached_property
    def places(self) -> Tensor:
        """Where in its prompt each token stands, `[n, W]`; fillers where the last one does."""
        return self.starts[:, None] + torch.arange(int(self.counts.max()), device=self.rows.device).minimum(self.counts[:, None] - 1)

    @cached_property
    def tokens(self) -> tuple[Tensor, Tensor]:
        """Row and column of every token that is read, fillers left out."""
        row, column = (torch.arange(int(self.counts.max()), device=self.rows.device) < self.counts[:, None]).nonzero(as_tuple=True)
        return row, column

    @cached_property
    def sight(self) -> Tensor | None:
        """Which tokens of its prompt each token sees, `[n, 1, W, tokens]`; None where all begin at the beginning: those before it in the pass."""
        if not self.starts.any():
            return None
        return (torch.arange(int((self.starts + self.counts).max()), device=self.rows.device) <= self.places[..., None])[:, None]


class GroupCache(Cache):
    """Keys and values of prompts, kept once, and of the completions that go on from them.

    First every prompt is read, `reading` saying what; then `reading` is None and a pass holds the newest token of each row, at
    place `step` of its completion.

    Args:
        lengths: tokens of each prompt `[P]`.
        groups: the prompt of each row `[B]`, ascending; every prompt has a row.
        max_tokens: of a completion.
    """

    def __init__(self, lengths: Tensor, groups: Tensor, max_tokens: int) -> None:
        super().__init__(layers=[])
        self.reading: Reading | None = None
        self.step = 0
        self.reach = int(lengths.max()) + max_tokens  # tokens of the longest sequence that may come about
        self._width, self._max_tokens, self._groups = int(lengths.max()), max_tokens, groups
        self._prompts: dict[int, list[Tensor]] = {}  # of each layer keys and values [P, K, T, D]
        self._own: dict[int, list[Tensor]] = {}  # of each layer keys and values [B, K, N, D]
        padding = torch.arange(self._width, device=lengths.device) >= lengths[:, None]
        self._padding = torch.zeros(padding.shape, device=lengths.device).masked_fill_(padding, -torch.inf)[:, None] if padding.any() else None  # [P, 1, T]
        self._arrange()

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Nothing that a model should count from: positions are always given."""
        return 0

    @property
    def prompts(self) -> Layers:
        """Of each layer keys and values of the prompts."""
        return self._prompts

    def begin_with(self, layers: Layers, sources: Tensor, rows: Tensor, tokens: int) -> None:
        """Takes over from another cache, as some prompts' first tokens, what was made of others that begin like them.

        Args:
            layers: of the other.
            sources: which prompts of it.
            rows: of which prompts here.
            tokens: how many, at the most; those that are not alike are read anew and put in their places.
        """
        for layer, stores in layers.items():
            for store, known in zip(self._store(layer, stores[0], stores[0].dtype), stores, strict=True):
                store[rows, :, :tokens] = known[sources, :, :tokens]

    def _store(self, layer: int, states: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """Keys and values of the prompts in a layer, made when they are first asked for."""
        if layer not in self._prompts:
            self._prompts[layer] = [states.new_zeros(self._n_groups, states.shape[1], self._width, states.shape[3], dtype=dtype) for _ in range(2)]
        return self._prompts[layer]

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keeps new keys and values; returns those of the prompts being read so far, or each row's own, `[rows, K, tokens, D]`."""
        new, dtype = (key_states, value_states), _kept_as(key_states)
        if self.reading is not None:
            stores = self._store(layer_idx, key_states, dtype)
            row, column = self.reading.tokens
            for store, states in zip(stores, new, strict=True):
                store[self.reading.rows[row], :, self.reading.places[row, column]] = states.transpose(1, 2)[row, column].to(dtype)
            if self.reading.sight is None:
                return new
            keys, values = (store[self.reading.rows, :, : self.reading.sight.shape[-1]].to(key_states.dtype) for store in stores)
            return keys, values
        if layer_idx not in self._own:
            self._own[layer_idx] = [states.new_empty(*states.shape[:2], self._max_tokens, states.shape[3], dtype=dtype) for states in new]
        for store, states in zip(self._own[layer_idx], new, strict=True):
            store[:, :, self.step] = states[:, :, 0]
        keys, values = (store[:, :, : self.step + 1] for store in self._own[layer_idx])
        return keys, values

    def attend(self, query: Tensor, key: Tensor, value: Tensor, layer: int, scaling: float) -> Tensor:
        """Attention of each row's newest token to its prompt and to its own tokens.

        Args:
            query: `[B, H, 1, D]`.
            key, value: the rows' own, `[B, K, tokens, D]`, as `update` returned them.

        Returns:
            `[B, 1, H, D]`.
        """
        with torch.autocast(query.device.type, enabled=False):  # it would cast what is kept anew for every token
            return self._attend(query.to(key.dtype), key, value, layer, scaling).to(query.dtype)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, layer: int, scaling: float) -> Tensor:
        (rows, heads), kv_heads = query.shape[:2], key.shape[1]
        query = query.reshape(rows, kv_heads, heads // kv_heads, -1) * scaling
        prompt_keys, prompt_values = self._prompts[layer]
        to_prompt = self._by_group(query) @ prompt_keys.flatten(0, 1).mT  # [P * K, G * R, T]
        if self._padding is not None:
            to_prompt.view(self._n_groups, -1, self._width).add_(self._padding)
        to_own = query.flatten(0, 1) @ key.flatten(0, 1).mT  # [B * K, R, tokens]
        weights = torch.cat([self._by_row(to_prompt, kv_heads).flatten(0, 1), to_own], -1).softmax(-1, dtype=torch.float32).to(value.dtype)
        on_prompt, on_own = weights.split([self._width, key.shape[2]], -1)
        from_prompt = self._by_group(on_prompt.unflatten(0, (rows, kv_heads))) @ prompt_values.flatten(0, 1)  # [P * K, G * R, D]
        from_own = (on_own @ value.flatten(0, 1)).unflatten(0, (rows, kv_heads))
        return (self._by_row(from_prompt, kv_heads) + from_own).reshape(rows, 1, heads, -1)

    def keep(self, rows: Tensor) -> None:
        """Drops all rows but these, ascending, and the prompts that no row is left of."""
        alive, self._groups = self._groups[rows].unique(return_inverse=True)
        for stores in self._own.values():
            stores[:] = [self._kept(store, rows) for store in stores]
        if len(alive) < self._n_groups:
            for stores in self._prompts.values():
                stores[:] = [store[alive] for store in stores]
            self._padding = None if self._padding is None else self._padding[alive]
        self._arrange()

    def _kept(self, store: Tensor, rows: Tensor) -> Tensor:
        """Some rows of a store; what is not written yet is not copied."""
        kept = store.new_empty(len(rows), *store.shape[1:])
        kept[:, :, : self.step + 1] = store[:, :, : self.step + 1][rows]
        return kept

    def _arrange(self) -> None:
        """Gives each row its slot among the `P * G`; none is named where every slot is taken."""
        counts = self._groups.bincount()
        self._n_groups, largest = len(counts), int(counts.max())
        rank = torch.arange(len(self._groups), device=counts.device) - (counts.cumsum(0) - counts)[self._groups]
        full = len(self._groups) == self._n_groups * largest
        self._slots, self._n_slots = None if full else self._groups * largest + rank, self._n_groups * largest

    def _by_group(self, rows: Tensor) -> Tensor:
        """`[B, K, R, X]` to `[P * K, G * R, X]`."""
        if self._slots is not None:
            rows = rows.new_zeros(self._n_slots, *rows.shape[1:]).index_copy_(0, self._slots, rows)
        groups = rows.unflatten(0, (self._n_groups, -1)).transpose(1, 2)  # [P, K, G, R, X]
        return groups.reshape(self._n_groups * groups.shape[1], -1, groups.shape[-1])

    def _by_row(self, groups: Tensor, kv_heads: int) -> Tensor:
        """`[P * K, G * R, X]` to `[B, K, R, X]`."""
        largest = self._n_slots // self._n_groups
        split = groups.view(self._n_groups, kv_heads, largest, groups.shape[1] // largest, -1)
        rows = split.transpose(1, 2).flatten(0, 1)
        return rows if self._slots is None else rows[self._slots]


def _kept_as(states: Tensor) -> torch.dtype:
    """What keys and values are kept as. One token against many keys is a product that processors do several times faster in float32 than in bfloat16."""
    device = states.device.type
    if device == "cpu":
        return torch.float32
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype


def group_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, group_cache: GroupCache, **kwargs: Any
) -> tuple[Tensor, None]:
    """What a transformers model calls for attention while it decodes; the cache comes to it through the model's own keyword arguments.

    Prompts that are read together are padded on the right, where causal attention does not look.

    Raises:
        ConfigError: the layer attends in a way that this does not.
    """
    scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
    if group_cache.reading is None:
        return group_cache.attend(query, key, value, cast(int, module.layer_idx), scaling), None
    window = kwargs.get("sliding_window")
    if window is not None and group_cache.reach > window:
        raise ConfigError("lm.path", f"its layers see {window} tokens at a time and {group_cache.reach} may come about; shorten prompt or sampling.max_tokens")
    special = [name for name in ("softcap", "s_aux") if kwargs.get(name) is not None]
    if special:
        raise ConfigError("lm.path", f"its layers attend with {special[0]}, which cannot be decoded here; take a model of the Llama or Qwen kind")
    sight = group_cache.reading.sight
    out = F.scaled_dot_product_attention(query, key, value, sight, is_causal=sight is None, scale=scaling, enable_gqa=query.shape[1] != key.shape[1])
    return out.transpose(1, 2), None


AttentionInterface.register(ATTENTION, group_attention)
