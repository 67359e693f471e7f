"""The card of the model: what it is, what it has read, what it says, what it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framework.experiment import Run

_CARD = """\
---
license: mit
language: en
library_name: transformers
pipeline_tag: text-generation
---
# A very small language model for tests and first steps

A causal language model of Llama type with {parameters:,} parameters, trained from nothing on generated text: what is said in the
worlds of this project (their training wordings only), questions about it, and plain conversation. It greets, and speaks in the worlds' own
sentences. It is here so that everything that generates text can be tried, tested and
tuned in seconds, without a download.

- **Use**: `AutoModelForCausalLM.from_pretrained(DIRECTORY)`; the chat template comes with the tokenizer. Weights are bfloat16.
- **Read**: {documents:,} documents, {tokens:,} tokens, each once, of these kinds (shares of the characters):
  {shares}
- **Drilled**, in copying tokens drawn by chance: {drills}
- **Trained**: {steps:,} steps of at most {step_tokens:,} tokens, AdamW, learning rate {learning_rate:g} falling to nothing, seed {seed}, {wall:.0f} minutes.
- **Held-out loss**, nats a token: {curve}
- **Made by**: {start}`{command}`

## Limits

It knows no more of the world than a few hundred facts in `experiments/pretrain/talk.yaml`; outside of the kinds of text above it
says things that are fluent and wrong. English only. It was not made safe for people: research and tests only, and nothing that it
says about money or health is advice.
No document had more than {row_tokens} tokens: what comes later in a longer one it has never read.

## What it says

The likeliest answer, and one drawn at temperature {temperature}.

{samples}
"""

_DRILLS = "{updates:,} updates of {tokens:,} tokens before it read ({shortest} to {longest} to be copied), and {beside} tokens in every step beside"


def card(record: Mapping[str, Any], run: Run, temperature: float) -> str:
    """The text of README.md, from what is known of a run and its settings."""
    settings = run.config["experiment"]
    shares, how = settings["text"]["shares"], settings["optimisation"]
    read = {**shares, f"data ({', '.join(settings['text']['sources'])})": shares["data"]}
    del read["data"]
    return _CARD.format(
        **{key: record[key] for key in ("parameters", "documents", "tokens", "steps")},
        shares=", ".join(f"{name} {share / sum(shares.values()):.0%}" for name, share in read.items() if share),
        row_tokens=how["row_tokens"],
        step_tokens=how["row_tokens"] * how["batch_rows"],
        learning_rate=how["learning_rate"],
        seed=run.settings.seed,
        wall=record["wall_s"] / 60,
        curve=", ".join(f"{loss:.3f} (step {step:,})" for step, loss in record["curve"]),
        drills=_DRILLS.format(**settings["drills"]),
        start=f"going on from the model that lay in `{settings['start']}` (`experiments/LOG.md`), " if settings["start"] else "",
        command=" ".join(["python run.py", *(choice for choice in run.choices if not choice.startswith("hydra."))]),
        temperature=temperature,
        samples="\n".join(map(_sample, record["samples"])),
    )


def _sample(sample: Mapping[str, str]) -> str:
    quoted = "\n".join(f"> {line}  " for line in sample["prompt"].splitlines())
    return f"{quoted}\n\n- {sample['greedy']}\n- {sample['sampled']}\n"
