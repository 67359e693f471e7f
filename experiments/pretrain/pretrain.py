"""A small language model from nothing: `python run.py experiment=pretrain hydra.run.dir=DIR` leaves it in DIR/model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.pretrain.card import card
from experiments.pretrain.corpus import SPLIT, Shares, corpus, source, worlds
from experiments.pretrain.learning import Drills, Optimisation, Shape, build_model, drill, held_out_loss, learn, steps
from experiments.pretrain.student import TEMPERATURE, Student
from experiments.pretrain.templates import talk
from experiments.pretrain.tokenizer import pack, texts, tokens, train_tokenizer
from framework.checkpoint import save_checkpoint
from framework.config import Count, options
from framework.errors import near
from framework.experiment import Experiment, Run
from framework.interfaces import Domain
from framework.progress import progress
from framework.rollout import situation


@dataclass(frozen=True)
class Text:
    """What is read."""

    characters: Count  # of all documents, about
    shares: Shares
    sources: tuple[str, ...]  # options of conf/data whose training rows are read too
    held_out: Count  # documents


class Pretrain(Experiment):
    """Writes the text, trains a tokenizer and a model on it, and leaves both in Hugging Face layout with a card.

    Args:
        start: a directory that an earlier run has left, whose tokenizer and model go on learning; null: from nothing.
        drills: copying, before anything is read and beside it.
        text: what is read.
        vocabulary: entries of the tokenizer, bytes and marks included; of a start they stay as they are, and so does its shape.
        shape: of the model.
        optimisation: how it learns.
        points: looks at the held-out loss and at sample answers; at each the model is saved.
    """

    def __init__(self, start: str | None, drills: Drills, text: Text, vocabulary: Count, shape: Shape, optimisation: Optimisation, points: Count) -> None:
        if vocabulary > 2**16:
            raise ValueError(f"vocabulary: token ids are kept as 16-bit numbers, so at most 65536, not {vocabulary}")
        if optimisation.row_tokens > shape.context:
            raise ValueError(f"optimisation.row_tokens: at most the {shape.context} tokens of shape.context, not {optimisation.row_tokens}")
        for name in text.sources:
            if name not in options("data"):
                raise ValueError(f"text.sources: no data={name}{near(name, options('data'))}")
        self.start, self.drills, self.text, self.vocabulary, self.shape = start, drills, text, vocabulary, shape
        self.optimisation, self.points = optimisation, points

    def run(self, run: Run) -> bool:
        """See `Experiment`."""
        start = time.monotonic()
        places = worlds()
        documents = corpus(places, [source(name) for name in self.text.sources], self.text.shares, self.text.characters, run.settings.seed)
        tokenizer = AutoTokenizer.from_pretrained(self.start) if self.start else train_tokenizer(texts(documents), self.vocabulary, self.shape.context)
        learnt, held = (pack(part, self.optimisation.row_tokens, tokenizer.pad_token_id) for part in self._split(tokens(tokenizer, documents)))
        torch.manual_seed(run.settings.seed)
        model: Any = AutoModelForCausalLM.from_pretrained(self.start, dtype=torch.float32) if self.start else build_model(self.shape, tokenizer)
        student = Student(model.to(run.device), tokenizer)
        record: dict[str, Any] = {
            "parameters": student.model.num_parameters(),
            "documents": int((learnt == tokenizer.bos_token_id).sum()),
            "tokens": int((learnt != tokenizer.pad_token_id).sum()),
            "steps": steps(len(learnt), self.optimisation),
            "curve": [],
        }
        print(", ".join(f"{value:,} {key}" for key, value in record.items() if key != "curve"), flush=True)
        self._drill(run, student)
        with progress("pretrain", record["steps"]) as tell:

            def after(update: int, metrics: Mapping[str, float]) -> None:
                tell(update, f"loss {metrics['train/loss']:.3f}")
                run.tracker.log(metrics, update)
                if update * self.points // record["steps"] > (update - 1) * self.points // record["steps"]:
                    record["curve"].append([update, held_out_loss(student.model, held, self.optimisation.batch_rows)])
                    record["wall_s"] = round(time.monotonic() - start)
                    self._point(run, student, record, prompts(places))

            learn(student.model, learnt, self.optimisation, self.drills, run.settings.seed, after)
        return True

    def _drill(self, run: Run, student: Student) -> None:
        """Teaches to copy, if that is asked for."""
        if not self.drills.updates:
            return
        with progress("drills", self.drills.updates) as tell:

            def after(update: int, metrics: Mapping[str, float]) -> None:
                tell(update, f"loss {metrics['drill/loss']:.3f}")
                run.tracker.log(metrics, update)

            drill(student.model, self.drills, self.optimisation.max_grad_norm, run.settings.seed, after)

    def _split(self, documents: Sequence[Sequence[int]]) -> tuple[list[Sequence[int]], list[Sequence[int]]]:
        """Documents to learn from, and some that are not among those; none longer than a row."""
        short = [ids for ids in documents if len(ids) <= self.optimisation.row_tokens]
        held = short[: self.text.held_out]
        known = set(map(tuple, held))
        return [ids for ids in short[self.text.held_out :] if tuple(ids) not in known], held

    def _point(self, run: Run, student: Student, record: dict[str, Any], asked: Sequence[str]) -> None:
        """Looks at what has been learnt so far, and keeps it."""
        update, found = record["curve"][-1]
        record["samples"] = student.samples(asked, run.settings.seed)
        run.tracker.log({"validation/loss": found}, update)
        print(f"step {update:,}, held-out loss {found:.3f} nats a token")
        print(*(f"  {sample['prompt'].splitlines()[-1]}\n    {sample['greedy']}" for sample in record["samples"]), sep="\n", flush=True)

        def write(directory: Path) -> None:
            student.save(directory)
            (directory / "README.md").write_text(card(record, run, TEMPERATURE), encoding="utf-8")

        save_checkpoint(run.directory / "model", write, record)


def prompts(places: Sequence[Domain]) -> list[str]:
    """What is asked to see how far the model is: plain questions, and a situation of each world."""
    return [*talk()["samples"], *(situation(place.make(SPLIT), number) for number, place in enumerate(places))]
