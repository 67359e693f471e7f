"""The small language model that comes with the package: whole, small, and fluent before any tuning."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import framework.lm
from experiments.pretrain.student import Student
from framework.config import load_domain
from framework.datasets.demonstrations import Demonstrations
from framework.datasets.generated import Sizes

BUNDLED = Path(framework.lm.__file__).with_name("bundled")


@pytest.fixture(scope="module")
def student() -> Student:
    return Student(AutoModelForCausalLM.from_pretrained(BUNDLED, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(BUNDLED))


def test_it_is_small_and_has_a_card() -> None:
    files = {path.name: path.stat().st_size for path in BUNDLED.iterdir()}
    assert files.keys() >= {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"}
    assert sum(files.values()) < 10 * 2**20


def test_it_talks(student: Student) -> None:
    hello, thanks, _ = student.answers(["hello", "Thank you very much.", "My name is Rosa."], 0, 0)
    assert any(word in hello for word in ("Hello", "Hi", "Good")) and any(word in thanks for word in ("welcome", "pleasure", "Not at all", "Glad"))


@pytest.mark.slow
def test_it_speaks_as_a_world_expects(student: Student) -> None:
    source = Demonstrations(load_domain("finance", "SuitabilityDesk"), Sizes(1, 40, 1), 0, 0.3, 0.001)
    asked = source.conversations("validation")
    understood = source.scores(student.answers([row.prompt[0].content for row in asked], 0, 0), asked)["understood"]
    assert understood.low > 0.3  # 0.575 [0.425, 0.725] when it was made: acts that are allowed, in the world's own words


def test_drawing_leaves_chance_elsewhere_as_it_was(student: Student) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (student.answers(["Tell me something."], 1.0, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert torch.equal(torch.random.get_rng_state(), before)
