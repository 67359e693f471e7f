"""Talk to a language model, tuned or not: `experiment=chat checkpoint=DIR`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from framework.checkpoint import open_checkpoint
from framework.config import Count, Fraction, NonNegative, NonNegativeCount
from framework.experiment import Experiment, Run
from framework.interfaces import Algorithm, LanguageModel, Tuning
from framework.types import Message, Sampling

_HELP = "/reset forgets what was said, /system TEXT sets what the assistant is told first, /quit ends (or Ctrl-D)"


class Chat(Experiment):
    """Reads what a person says, line by line, and lets the model answer word by word.

    Args:
        system: what the assistant is told first; null for nothing.
        compare: whether the model as it was before tuning answers too, each keeping its own history.
        max_tokens: of an answer.
        temperature: 0 takes the likeliest token.
        top_p: tokens are drawn from the likeliest that together have this probability.
        top_k: tokens are drawn from so many of the likeliest; 0: from all.
        stop: texts at which an answer ends; they are not part of it.
    """

    def __init__(
        self, system: str | None, compare: bool, max_tokens: Count, temperature: NonNegative, top_p: Fraction, top_k: NonNegativeCount, stop: Sequence[str]
    ) -> None:
        self.system, self.compare = system, compare
        self.sampling = Sampling(max_tokens, temperature, top_p, top_k, tuple(stop))

    def needs(self, algorithm: Algorithm | Tuning) -> Mapping[str, type]:
        """See `Experiment`."""
        return {"lm": LanguageModel}

    def run(self, run: Run) -> bool:
        """See `Experiment`."""
        run.lm.place(run.device)
        models = {"assistant": run.lm}
        if run.settings.checkpoint is not None:
            directory, record = open_checkpoint(Path(run.settings.checkpoint))
            run.check_against(record, directory)
            run.lm.load(directory)
            if self.compare:
                models = {"base": run.lm.base(), "tuned": run.lm}
                models["base"].place(run.device)
        self._talk(models, Console())
        return True

    def _talk(self, models: Mapping[str, LanguageModel], console: Console) -> None:
        console.print(f"Talk. {_HELP}.", style="dim")
        system, histories = self.system, {name: list[Message]() for name in models}
        while True:
            try:
                said = console.input("[bold]you:[/bold] ").strip()
            except (EOFError, KeyboardInterrupt):
                console.print()
                return
            command, _, rest = said.partition(" ")
            if command == "/quit":
                return
            if command in ("/reset", "/system"):
                system = (rest or None) if command == "/system" else system
                histories = {name: [] for name in models}
            elif said.startswith("/"):
                console.print(f"There is no {command}. {_HELP}.", style="dim")
            elif said:
                for name, lm in models.items():
                    self._answer(lm, name, system, histories[name], said, console)

    def _answer(self, lm: LanguageModel, name: str, system: str | None, history: list[Message], said: str, console: Console) -> None:
        """Streams one answer; the oldest turns are forgotten once they leave no room for it."""
        history.append(Message("user", said))
        first = [Message("system", system)] if system else []
        while len(prompt := lm.prompt([*first, *history])) + self.sampling.max_tokens > lm.context and len(history) > 1:
            del history[:2]
        console.print(f"[bold]{name}:[/bold] ", end="")
        pieces = []
        for piece in lm.stream(prompt, self.sampling):
            pieces.append(piece)
            console.out(piece, end="", highlight=False)
        console.print()
        history.append(Message("assistant", "".join(pieces).strip()))
