"""Transformers as readers of lines: any model in Hugging Face layout, frozen or with a LoRA adapter, or of random weights."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from framework.config import Fraction
from framework.data_packages import package_file
from framework.errors import ConfigError, DataError
from framework.lm.adapters import Lora
from framework.lm.encoder import LineEncoder, Standardiser
from framework.precision import Precision, chosen, computing

_BATCH_TOKENS, _LEARNING_TOKENS = 8_192, 2_048  # tokens of one forward pass, without gradients and with them
_KEPT_TOKENS = 8_192  # whose activations wait for the backward pass (six layers deep 150 kB each); those of more are computed again
_FITTED_LINES = 1_024
_REMEMBERED = 2**25  # bytes of hidden states
_MULTIPLE = 8  # widths, and with gradients numbers of rows, are multiples of this: each shape takes kernels and memory of its own


class Frozen:
    """A model that does not learn, and the hidden states of the last lines that it read.

    Where a policy and a reward stand on the same model, what one of them has just read the other need not read again.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self._states: dict[bytes, Tensor] = {}

    def recall(self, tokens: Sequence[bytes], read: Callable[[Sequence[bytes]], Tensor]) -> Tensor:
        """Hidden states `[n, K, D]` of lines; those not remembered are read."""
        new = [line for line in dict.fromkeys(tokens) if line not in self._states]
        fresh = read(new)
        found = {line: self._states[line] for line in tokens if line in self._states} | dict(zip(new, fresh.unbind(), strict=True))
        most = max(1, _REMEMBERED // (4 * fresh[0].numel())) if new else len(self._states)
        self._states.update(zip(new[-most:], fresh[-most:].clone().unbind(), strict=True))  # a copy, lest a few lines keep all that were read with them
        for line in list(itertools.islice(self._states, max(0, len(self._states) - most))):
            del self._states[line]
        return torch.stack([found[line] for line in tokens])


_frozen: WeakValueDictionary[tuple[object, ...], Frozen] = WeakValueDictionary()  # those in use, by all that makes them what they are


class PretrainedEncoder(LineEncoder):
    """Reads lines with some layers of a transformer; a line's vector is the mean of its tokens' hidden states.

    The middle layers of a sentence encoder keep more of what an utterance says than the last one does, so several are kept
    and the head mixes them; layers above the last one asked for are not run.

    Args:
        path: local directory or hub name.
        package: installed package that carries the model at `path`, instead of the two above.
        layers: hidden states to keep; 0 is the embedding.
        sha256: expected digest of `model.safetensors`, checked where given.
        weights: `random` keeps architecture and tokenizer and draws new weights from `seed`: a control.
        dtype: `auto` takes bfloat16 where the processor has it.
        mask: share of a line's tokens that are hidden while an adapter learns, lest the wordings be learnt by heart.
        adapter: what is trained inside the model; nothing if None.
    """

    def __init__(
        self,
        path: str,
        package: str | None = None,
        layers: tuple[int, ...] = (1, 3, 5),
        sha256: str | None = None,
        weights: Literal["pretrained", "random"] = "pretrained",
        seed: int = 0,
        dtype: Precision = "auto",
        mask: Fraction = 0.0,
        adapter: Lora | None = None,
    ) -> None:
        super().__init__()
        if not layers or min(layers) < 0:
            raise ValueError(f"layers must be one or more hidden states, counted from 0, not {layers}")
        self.path, self.package, self.layers, self.sha256 = path, package, layers, sha256
        self.weights, self.seed, self.dtype, self.mask, self.adapter = weights, seed, dtype, mask, adapter
        self.source = self._place_of()
        self.trainable = adapter is not None
        self.register_state_dict_post_hook(_drop_frozen_weights)

    def tuned(self, adapter: Lora) -> PretrainedEncoder:
        """See `LineEncoder`."""
        return PretrainedEncoder(self.path, self.package, self.layers, self.sha256, self.weights, self.seed, self.dtype, self.mask, adapter)

    def place(self, device: torch.device) -> None:
        """Loads tokenizer and weights."""
        from transformers import AutoConfig, AutoTokenizer

        self._check_digest()
        try:
            config = AutoConfig.from_pretrained(self.source)
        except (OSError, ValueError) as error:
            told = str(error).strip().splitlines()[0]
            raise ConfigError("lm.path", f"{self.source!r} holds no model in Hugging Face layout, nor is it a name that the hub gives us ({told})") from error
        if max(self.layers) > config.num_hidden_layers:
            raise ConfigError("lm.layers", f"{self.source} has {config.num_hidden_layers} layers, so {max(self.layers)} is not one of them")
        config.num_hidden_layers = max(1, *self.layers)
        self.tokenizer = AutoTokenizer.from_pretrained(self.source)
        self.compute = chosen(device, self.dtype)
        self._frozen = None if self.adapter else self._one(config, device)
        self.model = self._frozen.model if self._frozen else self._model(config).to(device).eval()
        self.shape, self.device = (len(self.layers), config.hidden_size), device
        self.standardise = Standardiser(self.shape).to(device)

    def train(self, mode: bool = True) -> PretrainedEncoder:
        """The model's own dropout stays off: it would make every reading of a line another. With an adapter `mask` is what varies."""
        super().train(False)
        self.training = mode
        return self

    def fit(self, lines: Sequence[str]) -> None:
        """Takes the mean and scale of each feature over the training lines, or over so many of them that more would not change it."""
        some = lines[:: -(-len(lines) // _FITTED_LINES) or 1]
        with torch.no_grad():
            self.standardise.fit(self._hidden(self.tokens(some)))

    def tokens(self, lines: Sequence[str]) -> list[bytes]:
        """Token ids as bytes."""
        limit = min(self.tokenizer.model_max_length, 512) // _MULTIPLE * _MULTIPLE
        return [np.asarray(ids, np.int32).tobytes() for ids in self.tokenizer(list(lines), truncation=True, max_length=limit)["input_ids"]]

    def encode(self, tokens: Sequence[bytes]) -> Tensor:
        """Standardised features; with gradients only where an adapter learns."""
        with torch.set_grad_enabled(self.trainable and torch.is_grad_enabled()):
            if self.training and torch.is_grad_enabled() and self.adapter is not None and self.mask:
                tokens = [self._masked(line, self.mask) for line in tokens]
            features: Tensor = self.standardise(self._hidden(tokens))
        return features

    def _masked(self, line: bytes, share: float) -> bytes:
        """A line with some of its tokens hidden; the first and the last stay, they are the tokenizer's own marks."""
        ids = torch.frombuffer(bytearray(line), dtype=torch.int32)
        hidden = torch.rand(len(ids)) < share
        hidden[[0, -1]] = False
        filler = self.tokenizer.unk_token_id if self.tokenizer.mask_token_id is None else self.tokenizer.mask_token_id
        return ids.masked_fill(hidden, filler).numpy().tobytes()

    def _hidden(self, tokens: Sequence[bytes]) -> Tensor:
        """Mean hidden states `[n, K, D]`, batched by length so that little is padded.

        Where gradients are wanted, what a batch needs for them is kept up to a limit and computed again beyond it
        (Chen et al., 2016, arXiv:1604.06174), so that memory is bounded however many lines are learned from at once.
        """
        return self._frozen.recall(tokens, self._read) if self._frozen and tokens else self._read(tokens)

    def _read(self, tokens: Sequence[bytes]) -> Tensor:
        if not tokens:
            return torch.zeros(0, *self.shape, device=self.device)
        rows = [np.frombuffer(line, np.int32) for line in tokens]
        learning = torch.is_grad_enabled()
        parts, order, read = [], list[int](), 0
        for width, places in _by_width(rows, _LEARNING_TOKENS if learning else _BATCH_TOKENS):
            batch = [rows[place] for place in places]
            read += width * len(places)
            again = learning and read > _KEPT_TOKENS
            parts.append(checkpoint(self._forward, batch, width, use_reentrant=False, preserve_rng_state=False) if again else self._forward(batch, width))
            order += places
        return torch.cat(parts)[torch.as_tensor(np.argsort(order), device=self.device)]

    def _forward(self, rows: list[np.ndarray], width: int) -> Tensor:
        n = _up(len(rows)) if torch.is_grad_enabled() else len(rows)
        ids, mask = np.zeros((n, width), np.int64), np.zeros((n, width), np.int64)
        mask[:, 0] = 1  # the rows that only fill up, too: the mean of no token is no number
        for row, line in enumerate(rows):
            ids[row, : len(line)], mask[row, : len(line)] = line, 1
        attention = torch.as_tensor(mask, device=self.device)
        with computing(self.device, self.dtype):
            states = self.model(input_ids=torch.as_tensor(ids, device=self.device), attention_mask=attention, output_hidden_states=True).hidden_states
        kept = torch.stack([states[layer] for layer in self.layers], dim=1).float()
        weights = attention[:, None, :, None].float()
        return ((kept * weights).sum(dim=2) / weights.sum(dim=2))[: len(rows)]

    def _place_of(self) -> str:
        """Directory or hub name; of a model that a package carries, its directory there."""
        if self.package is None:
            if Path(self.path).is_absolute() and not Path(self.path).is_dir():
                raise ConfigError("lm.path", f"no directory {self.path}")
            return self.path
        try:
            return str(package_file(self.package, self.path, extra="minilm"))
        except DataError as error:
            raise ConfigError("lm.path", f"{error}; a model of your own is read by lm=local lm.path={self.path}") from error

    def _check_digest(self) -> None:
        if self.sha256 is None:
            return
        weights = Path(self.source) / "model.safetensors"
        if not weights.is_file():
            raise ConfigError("lm.sha256", f"{weights} is not there, so its digest cannot be checked; lm.sha256=null leaves that out")
        if (found := hashlib.sha256(weights.read_bytes()).hexdigest()) != self.sha256:
            raise ConfigError("lm.sha256", f"{weights} has digest {found}, not the published {self.sha256}")

    def _one(self, config: object, device: torch.device) -> Frozen:
        """The model as others have it already, or a new one."""
        drawn = self.seed if self.weights == "random" else None
        alike = (self.source, self.layers, self.sha256, self.weights, drawn, self.compute, str(device))
        found = _frozen.get(alike)
        if found is None:
            found = _frozen[alike] = Frozen(self._model(config).to(device).eval())
        return found

    def _model(self, config: object) -> torch.nn.Module:
        from transformers import AutoModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        logging.set_verbosity_error()  # the layers that are not run are reported as unused weights
        if self.weights == "random":
            with torch.random.fork_rng():
                torch.manual_seed(self.seed)
                model = AutoModel.from_config(config)
        else:
            model = AutoModel.from_pretrained(self.source, config=config)
        model = model.requires_grad_(False)
        if self.adapter is None:
            return model.to(self.compute)
        model.set_attn_implementation("eager")  # on short lines the fused kernel's backward pass takes as long as all the rest together
        return self.adapter.onto(model, dtype=self.compute)


def _up(number: int) -> int:
    """The next multiple."""
    return -(-number // _MULTIPLE) * _MULTIPLE


def _by_width(rows: Sequence[np.ndarray], tokens: int) -> Iterator[tuple[int, list[int]]]:
    """Rows of like length together, at most so many tokens: the width they are padded to, and their places."""
    widths = [_up(len(row)) for row in rows]
    for width, group in itertools.groupby(sorted(range(len(rows)), key=widths.__getitem__), key=widths.__getitem__):
        places = list(group)
        most = max(1, tokens // width)
        yield from ((width, places[first : first + most]) for first in range(0, len(places), most))


def _drop_frozen_weights(encoder: PretrainedEncoder, state: dict[str, Tensor], prefix: str, _: object) -> None:
    """Keeps statistics and adapter only: the rest can be had from the model's own files."""
    for key in [key for key in state if key.startswith(f"{prefix}model.") and "lora_" not in key]:
        del state[key]
