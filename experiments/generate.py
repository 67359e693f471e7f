"""A language model answers every prompt of a file: `experiment=generate checkpoint=DIR experiment.prompts=FILE`."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from framework.checkpoint import open_checkpoint
from framework.config import Count, Fraction, NonNegative, NonNegativeCount
from framework.errors import ConfigError
from framework.experiment import Experiment, Run
from framework.interfaces import Algorithm, LanguageModel, Tuning
from framework.progress import progress
from framework.tuning.answering import answer
from framework.types import Conversation, Message, Sampling


class Generate(Experiment):
    """Writes `completions.jsonl` into the run's directory: a `prompt` and a `completion` a line.

    Args:
        prompts: a text file with a prompt on each line, or a CSV or JSON Lines file with a column `prompt` (others are passed over).
        system: what the assistant is told first; null for nothing.
        max_tokens: of an answer.
        temperature: 0 takes the likeliest token.
        top_p: tokens are drawn from the likeliest that together have this probability.
        top_k: tokens are drawn from so many of the likeliest; 0: from all.
        stop: texts at which an answer ends; they are not part of it.
        allowed: texts of which every answer is exactly one, so that the model sorts prompts into classes: token by token it has the choice of what leads
            on to one of them. Null: it may say anything.
    """

    def __init__(
        self,
        prompts: str,
        system: str | None,
        max_tokens: Count,
        temperature: NonNegative,
        top_p: Fraction,
        top_k: NonNegativeCount,
        stop: Sequence[str],
        allowed: Sequence[str] | None,
    ) -> None:
        if allowed is not None and not (allowed and all(text and text == text.strip() for text in allowed)):
            rule = "must be a list of texts, one at least, none of them empty or with blanks at an end; null, if anything may be said"
            raise ConfigError("experiment.allowed", f"{rule}, not {list(allowed)}")
        self.prompts, self.system = Path(prompts), system
        self.sampling = Sampling(max_tokens, temperature, top_p, top_k, tuple(stop), tuple(allowed or ()))

    def needs(self, algorithm: Algorithm | Tuning) -> Mapping[str, type]:
        """See `Experiment`."""
        return {"lm": LanguageModel}

    def run(self, run: Run) -> bool:
        """See `Experiment`."""
        prompts = _prompts(self.prompts)
        run.lm.place(run.device)
        if run.settings.checkpoint is not None:
            directory, record = open_checkpoint(Path(run.settings.checkpoint))
            run.check_against(record, directory)
            run.lm.load(directory)
        first = [Message("system", self.system)] if self.system else []
        rows = [Conversation([*first, Message("user", prompt), Message("assistant", "")]) for prompt in prompts]
        with progress("answers", len(rows)) as tell:
            said = answer(run.lm, rows, self.sampling, tell)
        path = run.directory / "completions.jsonl"
        lines = [json.dumps({"prompt": prompt, "completion": completion}, ensure_ascii=False) for prompt, completion in zip(prompts, said, strict=True)]
        path.write_text("\n".join([*lines, ""]), encoding="utf-8", errors="replace")
        print(f"{len(said)} answers: {path}")
        return True


def _prompts(path: Path) -> list[str]:
    """What is asked.

    Raises:
        ConfigError: the file cannot be read, or has no prompt in it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".jsonl":
            prompts = [str(json.loads(line)["prompt"]) for line in text.splitlines() if line.strip()]
        elif path.suffix == ".csv":
            rows = csv.DictReader(text.splitlines(keepends=True), strict=True)
            prompts = [next(value for name, value in row.items() if name.strip().lower() == "prompt") for row in rows]
        else:
            prompts = [line for line in text.splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError, ValueError, KeyError, StopIteration, csv.Error) as error:
        told = "no column or key 'prompt'" if isinstance(error, KeyError | StopIteration) else str(error)
        raise ConfigError("experiment.prompts", f"{path}: {told}; give a text file with a prompt a line, or CSV or JSONL with a column prompt") from error
    if not prompts:
        raise ConfigError("experiment.prompts", f"{path} holds no prompt")
    return prompts
