"""The recipe of the small language model: what it reads, its tokenizer and template, and that it learns."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import open_dict
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from experiments.pretrain import corpus, templates
from experiments.pretrain import pretrain as procedure
from experiments.pretrain.learning import Drills, Optimisation, Shape, build_model, drill, learn, loss
from experiments.pretrain.tokenizer import MARKS, pack, tokens, train_tokenizer
from framework.assemble import assemble
from framework.config import CONF, load_domain
from framework.interfaces import Domain
from framework.types import Conversation, Message
from framework.worlds.wordings import load_bank

SMALL = (  # seconds on any machine
    "experiment.text={characters: 500000, sources: [], held_out: 40, shares: {demonstrations: 2, episodes: 2, observations: 1, reading: 2, data: 0, talk: 3}}",
    "experiment.shape={layers: 2, hidden: 64, heads: 2, kv_heads: 1, feedforward: 128, context: 512}",
    "experiment.optimisation={row_tokens: 256, batch_rows: 2, learning_rate: 0.01}",
    "experiment.drills={updates: 4, tokens: 64, shortest: 3, longest: 5, beside: 0}",
    "experiment.vocabulary=1000",
    "experiment.points=2",
)
TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}, {"role": "assistant", "content": "Hello!"}]
TALK += [{"role": "user", "content": " two \n lines "}, {"role": "assistant", "content": "Yes. "}]


@pytest.fixture(scope="module")
def desk() -> Domain:
    found: Domain = load_domain("finance", "SuitabilityDesk")
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, desk: Domain) -> Path:
    """Where a miniature run has left its model."""
    return pretrained(tmp_path_factory.mktemp("pretrain"), desk)


def pretrained(directory: Path, desk: Domain, *more: str) -> Path:
    arguments = ["experiment=pretrain", *SMALL, *more]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=arguments, return_hydra_config=True)
    chosen = dict(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(procedure, "worlds", lambda: [desk])
        experiment, run = assemble(config, directory, chosen, arguments[1:], None)
        assert experiment.run(run)
    return directory / "model"


@pytest.fixture(scope="module")
def reader() -> PreTrainedTokenizerBase:
    return train_tokenizer(["some words to begin with, and some more words"], 300, 512)


@pytest.mark.slow
def test_it_learns_more_than_how_frequent_tokens_are(made: Path, desk: Domain) -> None:
    record = json.loads((made / "checkpoint.json").read_text())
    shares = corpus.Shares(2, 2, 1, 2, 0, 3)
    counts = Counter(id for ids in tokens(AutoTokenizer.from_pretrained(made), corpus.corpus([desk], [], shares, 500_000, 0)) for id in ids)
    frequencies = np.array(list(counts.values()), float) / sum(counts.values())
    entropy = -(frequencies * np.log(frequencies)).sum()
    first, last = (found for _, found in record["curve"])
    assert last < first and last < 0.6 * entropy, f"{first:.2f}, {last:.2f} nats a token; frequencies alone give {entropy:.2f}"


@pytest.mark.slow
def test_the_directory_is_what_transformers_reads(made: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(made), AutoTokenizer.from_pretrained(made)
    assert model.dtype == torch.bfloat16 and model.get_input_embeddings().weight is model.lm_head.weight
    assert (model.config.eos_token_id, model.config.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    asked = tokenizer.apply_chat_template(TALK[:2], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = model.generate(**asked, max_new_tokens=4, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert 1 <= len(said) <= 4


@pytest.mark.slow
def test_the_card_says_how_it_was_made(made: Path) -> None:
    card = (made / "README.md").read_text()
    assert "experiment.points=2" in card and "seed 0" in card and "reading 20%" in card and "> What is a kettle?" in card


def test_a_drill_is_learnt_from_its_second_time_alone(reader: PreTrainedTokenizerBase) -> None:
    torch.manual_seed(0)
    model = build_model(Shape(1, 16, 2, 1, 32, 64), reader)
    before = copy.deepcopy(model)
    told: list[float] = []
    drill(model, Drills(1, 30, 5, 5, 1e-3, 0), 1.0, 7, lambda update, metrics: told.append(metrics["drill/loss"]))
    chance = torch.Generator().manual_seed(7)
    torch.randint(5, 6, (1,), generator=chance)
    said = torch.randint(262, len(reader), (3, 5), generator=chance)
    ids = torch.cat([torch.full((3, 1), reader.bos_token_id), said, said], dim=1)
    likely = before(input_ids=ids).logits.detach().log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    assert told == [pytest.approx(-float(likely[:, 6:].mean()), abs=1e-5)]  # what the first token of the second time is nobody can know
    assert not torch.equal(model.lm_head.weight, before.lm_head.weight)


def test_drills_go_on_beside_the_text(reader: PreTrainedTokenizerBase) -> None:
    told: list[set[str]] = []
    rows, how = np.full((2, 8), 262, np.uint16), Optimisation(8, 1, 1e-3, 0.1, 0.0, 1.0)
    for beside in (0, 20):
        torch.manual_seed(0)
        model = build_model(Shape(1, 16, 2, 1, 32, 64), reader)
        learn(model, rows, how, Drills(0, 1, 2, 4, 1e-3, beside), 0, lambda update, metrics: told.append(set(metrics)))
    text = {"train/loss", "train/learning_rate"}
    assert told == [text, text, text | {"drill/loss"}, text | {"drill/loss"}]


@pytest.mark.slow
def test_it_goes_on_from_where_an_earlier_run_ended(made: Path, desk: Domain, tmp_path: Path) -> None:
    again = pretrained(tmp_path, desk, f"experiment.start={made}")
    assert AutoTokenizer.from_pretrained(again).get_vocab() == AutoTokenizer.from_pretrained(made).get_vocab()
    first, second = (json.loads((place / "checkpoint.json").read_text())["curve"] for place in (made, again))
    assert second[0][1] < first[-1][1] and str(made) in (again / "README.md").read_text()


def test_a_prompt_is_the_beginning_of_its_conversation(reader: PreTrainedTokenizerBase) -> None:
    whole = reader.apply_chat_template(TALK, return_dict=True)["input_ids"]
    for number in range(1, len(TALK)):
        speaks = TALK[number]["role"] == "assistant"
        prompt = reader.apply_chat_template(TALK[:number], add_generation_prompt=speaks, return_dict=True)["input_ids"]
        assert whole[: len(prompt)] == prompt
    assert whole[0] == reader.bos_token_id and whole[-1] == reader.eos_token_id


def test_the_template_marks_where_the_assistant_speaks(reader: PreTrainedTokenizerBase) -> None:
    told = reader.apply_chat_template(TALK, return_dict=True, return_assistant_tokens_mask=True)
    said = [id for id, speaks in zip(told["input_ids"], told["assistant_masks"], strict=True) if speaks]
    assert reader.decode(said) == "Hello!<|end|>Yes. <|end|>"


def test_another_role_is_refused(reader: PreTrainedTokenizerBase) -> None:
    with pytest.raises(Exception, match="a role is system, user or assistant, not tool"):
        reader.apply_chat_template([{"role": "tool", "content": "x"}])


def test_any_text_comes_back_as_it_was(reader: PreTrainedTokenizerBase) -> None:
    rng = random.Random(0)
    written = ["".join(chr(rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x110000), rng.randrange(128)])) for _ in range(60)) for _ in range(200)]
    written += [" a  b ", "\n\n\tx\r\n", "it 's , fine .", "don't", "£5 – café", "0123456789", "\0"]
    for text in written:
        assert reader.decode(reader(text)["input_ids"], clean_up_tokenization_spaces=False) == text
    assert len(reader("2026")["input_ids"]) == 4
    assert reader.convert_tokens_to_ids(list(MARKS)) == list(range(len(MARKS)))


def test_rows_hold_whole_documents() -> None:
    rng = np.random.default_rng(0)
    documents = [[1, *rng.integers(3, 99, n), 2] for n in rng.integers(1, 60, 500)]
    rows = pack(documents, 128, 0)
    found = [tuple(part) for row in rows for part in np.split(row[row != 0], np.flatnonzero(row[row != 0] == 1)[1:])]
    assert sorted(found) == sorted(map(tuple, documents))
    assert (rows == 0).mean() < 0.05


def test_a_document_in_a_row_is_read_as_if_it_stood_alone(reader: PreTrainedTokenizerBase) -> None:
    torch.manual_seed(0)
    model = build_model(Shape(2, 32, 2, 1, 64, 64), reader)
    documents = tokens(reader, ["one text", Conversation([Message("user", "and"), Message("assistant", "another")]), "a third"])
    together = loss(model, pack(documents, 64, 0))
    apart = [loss(model, np.array([document], np.uint16)) for document in documents]
    assert together[1] == sum(count for _, count in apart)
    torch.testing.assert_close(together[0], torch.stack([total for total, _ in apart]).sum())


def test_held_out_documents_are_not_learnt() -> None:
    text, how = procedure.Text(1000, corpus.Shares(1, 1, 1, 1, 0, 1), (), 3), Optimisation(4, 1, 1e-3, 0.1, 0.0, 1.0)
    experiment = procedure.Pretrain(None, Drills(0, 1, 1, 1, 1e-3, 0), text, 300, Shape(1, 8, 1, 1, 8, 8), how, 1)
    learnt, held = experiment._split([[1], [2], [3, 3], [1], [4], [5, 5, 5, 5, 5], [3, 3]])
    assert held == [[1], [2], [3, 3]] and learnt == [[4]]


def test_no_wording_of_a_test_split_is_read() -> None:
    worlds = corpus.worlds()
    assert len(worlds) >= 8
    for world in worlds:
        assert world.phrases is not None
        unseen = {line for values in load_bank(world.phrases.with_name("test.yaml")).values() for lines in values.values() for line in lines}
        known = {line for values in load_bank(world.phrases.with_name("train.yaml")).values() for lines in values.values() for line in lines}
        said = {line.partition(": ")[2] or line for text in islice(corpus.observations(world, 0), 100) for line in str(text).split("\n")}
        assert said & known and not said & (unseen - known)


def test_the_same_seed_gives_the_same_text(desk: Domain) -> None:
    shares = corpus.Shares(1, 1, 1, 1, 0, 1)
    first, again, other = (corpus.corpus([desk], [], shares, 20_000, seed) for seed in (0, 0, 1))
    assert first == again != other


def test_every_template_can_be_said() -> None:
    bank, rng = templates.talk(), random.Random(0)
    made_here = {"line", "other", "first", "last", "label", "utterance", "absent", "wording", "again", "holds", "fails"}
    slots = {**bank["slots"], **{name: [f"some {name}"] for name in made_here}}
    for part in ("dialogues", "reading"):
        for dialogue in (dialogue for dialogues in bank[part].values() for dialogue in dialogues):
            for way in (way for turn in dialogue for way in turn):
                said = templates.fill(way, slots, {}, rng)
                assert said.strip() == said and said and "<" not in said.replace("<text>", "")
            assert len(dialogue) % 2 == 0


def test_there_is_much_to_say() -> None:
    spoken = list(islice(templates.dialogues({**templates.talk()["slots"], "line": ["One line."], "other": ["Another."]}, random.Random(0)), 5_000))
    assert len({tuple(message.content for message in dialogue.messages) for dialogue in spoken}) > 4_000


def test_sums_are_right() -> None:
    slots = templates.numbers()
    assert all(int(s["a"]) + int(s["b"]) == int(s["c"]) <= 20 for s in slots["sum"])
    assert templates.word(0) == "zero" and templates.word(20) == "twenty" and templates.word(47) == "forty-seven"
    assert slots["count"][1] == {"n": "3", "N": "three", "words": "one, two, three", "digits": "1, 2, 3", "down": "3, 2, 1"}
