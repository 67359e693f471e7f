"""Byte-level BPE with chat marks, and rows of token ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from experiments.pretrain.corpus import Document

PAD, BEGIN, END = "<|pad|>", "<|begin|>", "<|end|>"
MARKS = (PAD, BEGIN, END, "<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message.role not in ['system', 'user', 'assistant'] -%}
        {{- raise_exception('a role is system, user or assistant, not ' + message.role) -}}
    {%- endif -%}
    {{- '<|' + message.role + '|>' -}}
    {%- if message.role == 'assistant' -%}
        {%- generation -%}{{- message.content + eos_token -}}{%- endgeneration -%}
    {%- else -%}
        {{- message.content + eos_token -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""
"""Every message adds to what is there and changes none of it, so a prompt is the beginning of its conversation."""

_OPEN_ROWS = 64  # that a document may still be put in


def train_tokenizer(texts: Iterable[str], vocabulary: int, context: int) -> PreTrainedTokenizerBase:
    """Byte-level BPE, digit by digit: any text comes back as it was.

    Args:
        texts: to learn merges from.
        vocabulary: entries, bytes and marks included.
        context: tokens the model can read.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=list(MARKS), initial_alphabet=alphabet, show_progress=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=BEGIN, eos_token=END, pad_token=PAD, model_max_length=context)
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS[3:])})
    tokenizer.padding_side = "left"  # as generating wants it
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def texts(documents: Iterable[Document]) -> Iterable[str]:
    """What is said in documents, without marks."""
    for document in documents:
        yield from [document] if isinstance(document, str) else (message.content for message in document.messages)


def tokens(tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document]) -> list[list[int]]:
    """Token ids of each document, from its first mark to its last."""
    marked = [
        BEGIN + document + END
        if isinstance(document, str)
        else tokenizer.apply_chat_template([{"role": message.role, "content": message.content} for message in document.messages], tokenize=False)
        for document in documents
    ]
    found: list[list[int]] = tokenizer(marked, add_special_tokens=False, verbose=False)["input_ids"] if marked else []
    return found


def pack(documents: Sequence[Sequence[int]], width: int, pad: int) -> NDArray[np.uint16]:
    """Rows `[R, width]` of whole documents, none longer than a row, in about the order given."""
    rows, open_rows = list[list[int]](), list[list[int]]()
    for document in documents:
        fitting = [row for row in open_rows if len(row) + len(document) <= width]
        if fitting:
            max(fitting, key=len).extend(document)
            continue
        if len(open_rows) == _OPEN_ROWS:
            open_rows.remove(max(open_rows, key=len))
        rows.append(list(document))
        open_rows.append(rows[-1])
    packed = np.full((len(rows), width), pad, np.uint16)
    for number, row in enumerate(rows):
        packed[number, : len(row)] = row
    return packed
