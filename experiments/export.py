"""A tuned language model as one plain model: `experiment=export checkpoint=DIR hydra.run.dir=OUT`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from framework.checkpoint import open_checkpoint
from framework.errors import ConfigError
from framework.experiment import Experiment, Run
from framework.interfaces import Algorithm, LanguageModel, Tuning


class Export(Experiment):
    """Writes `model/` into the run's directory: weights with any adapter folded in, tokenizer and card, for plain `from_pretrained`.

    A run's own `checkpoint/` is in standard layout too: an adapter for peft, or a whole model where all of it learnt.
    """

    def needs(self, algorithm: Algorithm | Tuning) -> Mapping[str, type]:
        """See `Experiment`."""
        return {"lm": LanguageModel}

    def run(self, run: Run) -> bool:
        """See `Experiment`."""
        if run.settings.checkpoint is None:
            raise ConfigError("checkpoint", "experiment=export needs one; give checkpoint=DIR, a run directory or a checkpoint in it")
        directory, record = open_checkpoint(Path(run.settings.checkpoint))
        run.check_against(record, directory)
        run.lm.place(run.device)
        run.lm.load(directory)
        target = run.directory / "model"
        run.lm.export(target)
        card = (directory / "README.md").read_text(encoding="utf-8") if (directory / "README.md").exists() else ""
        (target / "README.md").write_text(card.replace("library_name: peft", "library_name: transformers"), encoding="utf-8")
        print(f"the whole model: {target}\nload it with: AutoModelForCausalLM.from_pretrained({str(target)!r})")
        return True
